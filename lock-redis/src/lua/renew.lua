-- Extends live leases.
-- KEYS     the records, all different
-- ARGV[1]  the grace, ARGV[2] the retention of a record, in microseconds
--          then for each key: the owner, the token, the ttl in microseconds
-- Returns for each key {1} if it is still held, {0} if not, or {-1, why}.
local grace, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local records, faults = {}, {}
for at, key in ipairs(KEYS) do
  records[at], faults[at] = look(key)
end
local answers = {}
for at, key in ipairs(KEYS) do
  local record, first = records[at], 3 + (at - 1) * 3
  local owner, token, ends = ARGV[first], ARGV[first + 1], now + tonumber(ARGV[first + 2])
  if not record then
    answers[at] = { -1, faults[at] }
  -- An expired lease stays expired even if nobody took it.
  elseif is_live(record) and record.owner == owner and text(record.token) == token then
    -- The later end stays: a renewal that was delayed on its way doesn't shorten a lease.
    if ends > record.ends then
      local free_at = math.max(record.free_at, ends + grace)
      redis.call('HSET', key, 'until', text(ends), 'free_at', text(free_at))
      keep(key, ends, retention)
    end
    answers[at] = { 1 }
  else
    answers[at] = { 0 }
  end
end
return answers
