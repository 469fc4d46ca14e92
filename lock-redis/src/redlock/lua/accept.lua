-- Second phase: this master takes note of the token that was chosen, if the lock is still the asker's here, by the very
-- attempt that chose it or by an earlier one that no attempt takes back any more. Once a majority has, the lock is held. Every later claim at one of them learns of a token at least
-- as high.
-- KEYS the records, all different; ARGV[1] the number of the attempt; then for each record: owner, token
-- Answers for each record -1 if its key holds something else, or: 1 if it was accepted, else 0
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end

local answers = {}
for at, key in ipairs(KEYS) do
    local owner, token = ARGV[at * 2], ARGV[at * 2 + 1]
    local record = redis.pcall('HMGET', key, 'owner', 'until', 'token', 'attempt', 'granted')
    -- Not a hash: somebody else's, and no reason to leave the others of the group unanswered.
    if record.err then
        answers[at] = -1
    else
        if record[1] == owner and (record[4] == ARGV[1] or record[4] == '0') and num(record[2]) > now then
            if num(record[3]) < tonumber(token) then redis.call('HSET', key, 'token', token) end
            -- The higher: an acceptance that was delayed on its way is none.
            if num(record[5]) < tonumber(token) then redis.call('HSET', key, 'granted', token) end
            answers[at] = 1
        else
            answers[at] = 0
        end
    end
end
return answers
