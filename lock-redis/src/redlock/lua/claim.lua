-- First phase: makes the askers the owners of their locks at this master, where these can be had. Nobody holds a lock
-- by this alone, and no token is handed out: what is told is what the asker needs to choose one.
-- KEYS the records, all different
-- ARGV[1] the grace, ARGV[2] the retention, in microseconds; ARGV[3] the number of the attempt, which rises; then for each
-- record: owner, ttl and waiting time in microseconds (0: doesn't wait), holder as JSON, the tick that it is for ('' for none)
-- Answers for each record -1 if its key holds something else, or: {1, last token, token granted to this very owner or '', this master's clock}
--                       or {0, owner or '', remaining microseconds, holder or ''}
--                       or {2, last tick, '', ''} if the tick was used up here
-- Numbers go as text: Lua's are doubles, exact to 2^53, but tostring writes large ones with an exponent.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end
-- The last tick that was used up: below the first, which is 0, if there is none. What is not a number compares as false.
local function used_up(field)
    local last = tonumber(field)
    return last and last >= 0 and last or -1
end
local grace, retention, attempt = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function text(number) return string.format('%.0f', number) end

local answers = {}
for at, key in ipairs(KEYS) do
    local base = 3 + (at - 1) * 5
    local owner, ttl, wait, holder = ARGV[base + 1], tonumber(ARGV[base + 2]), tonumber(ARGV[base + 3]), ARGV[base + 4]
    local tick = tonumber(ARGV[base + 5])
    local record = redis.pcall('HMGET', key, 'owner', 'token', 'granted', 'until', 'free_at', 'holder', 'wanted', 'attempt',
        'last_tick')
    -- Not a hash: somebody else's, and no reason to leave the others of the group unanswered.
    if record.err then
        answers[at] = -1
    else
        local holds_until, free_at = num(record[4]), num(record[5])
        local mine = record[1] == owner and holds_until > now
        -- What is the owner's stays so: a call whose answer was lost isn't refused its own tick. But others are, also while
        -- somebody holds the lock.
        if not mine and tick and used_up(record[9]) >= tick then
            answers[at] = {2, text(used_up(record[9])), '', ''}
        elseif mine or free_at <= now then
            local granted = mine and record[3] or ''
            -- A claim that was delayed on its way doesn't shorten what there is.
            local new_until = mine and math.max(holds_until, now + ttl) or now + ttl
            local new_free_at = mine and math.max(free_at, now + ttl + grace) or now + ttl + grace
            -- What one attempt takes back must not be what another of the same owner relies on: the highest counts, and none,
            -- which is 0, from when a token was accepted. Then only a release by the owner frees it.
            local new_attempt = attempt
            if mine then new_attempt = record[3] and 0 or math.max(num(record[8]), attempt) end
            redis.call('HSET', key, 'owner', owner, 'attempt', text(new_attempt),
                'until', text(new_until), 'free_at', text(new_free_at), 'holder', holder)
            if not mine then redis.call('HDEL', key, 'granted', 'tick_before') end
            redis.call('PEXPIREAT', key, text((new_free_at + retention) / 1000))
            answers[at] = {1, record[2] or '0', granted or '', text(now)}
        else
            if wait > 0 and num(record[7]) < now + wait then
                redis.call('HSET', key, 'wanted', text(now + wait))
            end
            local live = record[1] and holds_until > now
            answers[at] = {0, live and record[1] or '', text(free_at - now), live and record[6] or ''}
        end
    end
end
return answers
