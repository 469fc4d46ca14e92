-- Gives locks back, and wakes who waits for them.
-- KEYS     the records, all different
-- ARGV[1]  the channel, ARGV[2] the retention of a record in microseconds
--          then for each key: the owner, the token ('' if the asker never learned it), for how many microseconds it stays
--          taken all the same, and the tick that is done ('' for none)
-- Returns for each key {1} if it was held, {0} if not, or {-1, why}.
local channel, retention = ARGV[1], tonumber(ARGV[2])
local records, faults = {}, {}
for at, key in ipairs(KEYS) do
  records[at], faults[at] = look(key)
end
local answers = {}
for at, key in ipairs(KEYS) do
  local record, first = records[at], 3 + (at - 1) * 4
  local owner, token, kept = ARGV[first], ARGV[first + 1], tonumber(ARGV[first + 2])
  local done = ARGV[first + 3]
  if not record then
    answers[at] = { -1, faults[at] }
  -- Never by the name alone: that would free the successor's lock.
  elseif is_live(record) and record.owner == owner and (token == '' or text(record.token) == token) then
    -- First: a server whose memory is full refuses a script's first write if it may grow, and this one never does. So a
    -- lock can be given back, and its tick used up.
    redis.call('HDEL', key, 'owner', 'holder', 'wanted', 'until', 'free_at')
    if done ~= '' and tonumber(done) > record.last_tick then
      redis.call('HSET', key, 'last_tick', done)
    end
    if kept > 0 then
      redis.call('HSET', key, 'until', text(now), 'free_at', text(now + kept))
      keep(key, now + kept, retention)
    end
    -- The mark went with it: who still waits afterwards asks again and marks it anew.
    if record.wanted > now then
      announce(channel, key)
    end
    answers[at] = { 1 }
  else
    answers[at] = { 0 }
  end
end
return answers
