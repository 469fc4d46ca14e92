-- Does once what a register does, on that of a resource that nobody can name, and leaves nothing: whether the server takes
-- writes, and whether the user may make them, shows before the first write is judged.
-- KEYS[1]  the register
redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], '')
return redis.call('DEL', KEYS[1])
