-- Takes a lock away from whoever has it at this master, for people. The last token stays, so the next one is higher, and so
-- does the last tick.
-- KEYS[1] the record; ARGV[1] the channel, ARGV[2] the retention in microseconds, ARGV[3] the lock's name
-- Answers {1} if somebody held it, else {0}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- What no script of ours wrote counts as nothing.
local function num(field) return tonumber(field or 0) or 0 end
local key = KEYS[1]
local record = redis.call('HMGET', key, 'owner', 'until', 'free_at', 'wanted')
-- What an at-least-for or a grace keeps taken is freed too.
if num(record[3]) <= now then return {0} end
redis.call('HDEL', key, 'owner', 'attempt', 'granted', 'holder', 'wanted', 'tick_before')
redis.call('HSET', key, 'until', string.format('%.0f', now), 'free_at', string.format('%.0f', now))
redis.call('PEXPIREAT', key, string.format('%.0f', (now + tonumber(ARGV[2])) / 1000))
if num(record[4]) > now then redis.call('PUBLISH', ARGV[1], ARGV[3]) end
return {record[1] and num(record[2]) > now and 1 or 0}
