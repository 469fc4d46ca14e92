-- What a register has seen. It only reads.
-- KEYS[1]  the register
-- Returns the fence, or false, or {-1, why}.
local seen = redis.pcall('GET', KEYS[1])
if type(seen) == 'table' and string.find(seen.err, 'WRONGTYPE', 1, true) then
  return { -1, 'the key holds something else than a fence' }
end
return seen
