-- Lets the caller's script work if the grant holds its lock, by the lock's record and this server's clock. Nobody takes the
-- lock before the script has ended: a server runs one at a time.
-- KEYS      the caller's, the record of the lock
-- ARGV      the caller's, the token
local lock = table.remove(KEYS)
local token = table.remove(ARGV)

-- Three fields are enough to let a holder pass. Tokens are compared as texts; beyond 2^53 - 1 the record is none of ours.
local fields = redis.pcall('HMGET', lock, 'token', 'owner', 'until')
local holds = fields[1] == token
  and tonumber(token) < 9007199254740991
  and is_live({ owner = fields[2], ends = tonumber(fields[3] or 0) or 0 })
if not holds then
  -- The whole record says whether there is a holder at all, or something that no version writes.
  local record, fault = look(lock)
  return refuse(record and 'not-held' or 'corrupt ' .. fault)
end
if not is_first() then
  return refuse('again')
end
return work(KEYS, ARGV)
