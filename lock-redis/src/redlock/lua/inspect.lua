-- What this master knows of locks, for people.
-- KEYS the records
-- Answers for each record: {owner or '', token granted to it or '', remaining microseconds of the lease,
-- microseconds until it may be had, holder or '', last token or ''}; an empty list where there is no record
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end
local function text(number) return string.format('%.0f', number) end

local answers = {}
for at, key in ipairs(KEYS) do
    local record = redis.call('HMGET', key, 'owner', 'granted', 'until', 'free_at', 'holder', 'token')
    if not record[3] then
        answers[at] = {}
    else
        local live = record[1] and num(record[3]) > now
        answers[at] = {
            live and record[1] or '',
            live and record[2] or '',
            text(math.max(num(record[3]) - now, 0)),
            text(math.max(num(record[4]) - now, 0)),
            live and record[5] or '',
            record[6] or '',
        }
    end
end
return answers
