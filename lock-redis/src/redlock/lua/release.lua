-- Gives locks back at this master, and wakes who waits for them. The record stays: it keeps the last token.
-- KEYS the records, all different
-- ARGV[1] the channel, '' to wake nobody; ARGV[2] the retention in microseconds; ARGV[3] the number of the attempt that is
-- taken back, '' for whatever the owner has; then for each record: the lock's name, owner, token ('' where the asker never
-- learned it), for how many microseconds it stays taken all the same, the tick that is done ('' for none)
-- Answers for each record -1 if its key holds something else, or: 1 if it was the asker's, else 0
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end
-- The last tick that was used up: below the first, which is 0, if there is none. What is not a number compares as false.
local function used_up(field)
    local last = tonumber(field)
    return last and last >= 0 and last or -1
end
local retention = tonumber(ARGV[2])
local function text(number) return string.format('%.0f', number) end

local answers = {}
for at, key in ipairs(KEYS) do
    local base = 3 + (at - 1) * 5
    local name, owner, token, keep = ARGV[base + 1], ARGV[base + 2], ARGV[base + 3], tonumber(ARGV[base + 4])
    local done = ARGV[base + 5]
    local record = redis.pcall('HMGET', key, 'owner', 'until', 'granted', 'wanted', 'attempt', 'last_tick',
        'tick_before')
    -- Not a hash: somebody else's, and no reason to leave the others of the group unanswered.
    if record.err then
        answers[at] = -1
    else
        local mine = record[1] == owner
            and (token == '' or not record[3] or record[3] == token)
            and (ARGV[3] == '' or record[5] == ARGV[3])
        -- Never by the name alone: that would free the successor's lock.
        if mine and num(record[2]) > now then
            redis.call('HDEL', key, 'owner', 'attempt', 'granted', 'holder', 'tick_before')
            local fields = {'until', text(now), 'free_at', text(now + keep)}
            if ARGV[3] ~= '' and record[7] then
                -- Nobody was granted what is taken back, so its acceptance used no tick up.
                fields[5], fields[6] = 'last_tick', record[7]
            elseif done ~= '' and used_up(record[6]) < tonumber(done) then
                fields[5], fields[6] = 'last_tick', done
            end
            redis.call('HSET', key, unpack(fields))
            redis.call('PEXPIREAT', key, text((now + keep + retention) / 1000))
            -- The mark goes with the announcement: who still waits afterwards asks again and marks it anew.
            if ARGV[1] ~= '' and record[4] then
                redis.call('HDEL', key, 'wanted')
                if num(record[4]) > now then redis.call('PUBLISH', ARGV[1], name) end
            end
            answers[at] = 1
        else
            answers[at] = 0
        end
    end
end
return answers
