-- Does once what the other scripts do, on the record of a lock that nobody can name, and leaves nothing: whether the server
-- takes writes, and whether the user may make them, shows before the first lock is asked for.
-- KEYS[1]  the record
-- ARGV[1]  the channel
-- Returns the server's time in microseconds.
local key = KEYS[1]
redis.call('HMGET', key, 'token')
redis.call('HSET', key, 'token', '0', 'owner', '')
keep(key, now, 60000000)
redis.call('HDEL', key, 'owner', 'token')
-- No lock has an empty name, so it wakes nobody.
redis.call('PUBLISH', ARGV[1], '')
return text(now)
