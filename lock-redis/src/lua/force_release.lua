-- Takes a lock away from whoever holds it or rests on it, at once and without the grace.
-- KEYS[1]  the record
-- ARGV[1]  the channel
-- Returns {1} if somebody held it, {0} if not, or {-1, why}.
local channel, key = ARGV[1], KEYS[1]
local record, fault = look(key)
if not record then
  return { -1, fault }
end
if record.free_at <= now then
  return { 0 }
end
redis.call('HDEL', key, 'owner', 'holder', 'wanted', 'until', 'free_at')
if record.wanted > now then
  announce(channel, key)
end
return { is_live(record) and 1 or 0 }
