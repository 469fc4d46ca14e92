-- Forgets what a register has seen, nonsense included; what is no register stays.
-- KEYS[1]  the register
-- Returns {1} if there was something, {0} if not, or {-1, why}.
local seen = redis.pcall('GET', KEYS[1])
if type(seen) == 'table' then
  if string.find(seen.err, 'WRONGTYPE', 1, true) then
    return { -1, 'the key holds something else than a fence' }
  end
  return seen
end
return { redis.call('DEL', KEYS[1]) }
