-- Extends live leases at this master. It also makes good an acceptance that did not reach it: where the owner
-- has claimed the lock, its token is noted.
-- KEYS the records, all different
-- ARGV[1] the grace, ARGV[2] the retention, in microseconds; then for each record: owner, token, ttl in microseconds
-- Answers for each record -1 if its key holds something else, or: 1 if the lease goes on here, else 0
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end
local grace, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local function text(number) return string.format('%.0f', number) end

local answers = {}
for at, key in ipairs(KEYS) do
    local base = 2 + (at - 1) * 3
    local owner, token, ttl = ARGV[base + 1], ARGV[base + 2], tonumber(ARGV[base + 3])
    local record = redis.pcall('HMGET', key, 'owner', 'until', 'free_at', 'token', 'granted')
    -- Not a hash: somebody else's, and no reason to leave the others of the group unanswered.
    if record.err then
        answers[at] = -1
    else
        local holds_until = num(record[2])
        local mine = record[1] == owner and (not record[5] or record[5] == token)
        -- An expired lease stays expired even if nobody took it.
        if mine and holds_until > now then
            -- The later expiry stays: a renewal that was delayed on its way doesn't shorten a lease.
            local free_at = math.max(num(record[3]), now + ttl + grace)
            -- First: a server out of memory refuses a script's first write if it may grow, and this one never does. A lease
            -- that is there already is not to be lost for want of memory.
            redis.call('PEXPIREAT', key, text((free_at + retention) / 1000))
            redis.call('HSET', key, 'until', text(math.max(holds_until, now + ttl)), 'free_at', text(free_at), 'granted', token,
                -- From now on no attempt takes it back.
                'attempt', '0')
            if num(record[4]) < tonumber(token) then redis.call('HSET', key, 'token', token) end
            answers[at] = 1
        else
            answers[at] = 0
        end
    end
end
return answers
