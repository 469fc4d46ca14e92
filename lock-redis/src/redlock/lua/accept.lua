-- Second phase: this master takes note of the token that was chosen, if the lock is still the asker's here, by the very
-- attempt that chose it or by an earlier one that no attempt takes back any more. Once a majority has, the lock is held.
-- Every later claim at one of them learns of a token at least as high, and is refused the tick that this grant uses up.
-- A token that isn't above the last one here is only accepted from the owner that had it accepted in this very lease: so each
-- master accepts a token for one owner, and of any two majorities one master is in both. Owner and attempt aren't enough: a
-- claim that comes late, and for the second time, makes an owner of somebody whose token another was granted meanwhile.
-- KEYS the records, all different; ARGV[1] the number of the attempt; then for each record: owner, token, the tick that is
-- used up ('' for none)
-- Answers for each record -1 if its key holds something else, or: 1 if it was accepted, else 0
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end
-- The last tick that was used up: below the first, which is 0, if there is none. What is not a number compares as false.
local function used_up(field)
    local last = tonumber(field)
    return last and last >= 0 and last or -1
end
local function text(number) return string.format('%.0f', number) end

local answers = {}
for at, key in ipairs(KEYS) do
    local base = 1 + (at - 1) * 3
    local owner, token, tick = ARGV[base + 1], ARGV[base + 2], tonumber(ARGV[base + 3])
    local record = redis.pcall('HMGET', key, 'owner', 'until', 'token', 'attempt', 'granted', 'last_tick')
    -- Not a hash: somebody else's, and no reason to leave the others of the group unanswered.
    if record.err then
        answers[at] = -1
    else
        local mine = record[1] == owner and (record[4] == ARGV[1] or record[4] == '0')
        -- What is noted as granted is this owner's: a claim by the next one deletes it, and so does a release.
        local nobody_elses = num(record[3]) < tonumber(token) or record[5] == token
        if mine and nobody_elses and num(record[2]) > now then
            local fields, last = {}, used_up(record[6])
            local function note(field, value)
                fields[#fields + 1] = field
                fields[#fields + 1] = value
            end
            if record[5] ~= token then
                note('token', token)
                note('granted', token)
            end
            if tick and last < tick then
                note('last_tick', text(tick))
                -- What comes back if the attempt comes to nothing.
                note('tick_before', text(last))
            end
            if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
            answers[at] = 1
        else
            answers[at] = 0
        end
    end
end
return answers
