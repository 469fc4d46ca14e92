-- Lets the caller's script work if the grant holds its lock, by the lock's record and this server's clock. Nobody takes the
-- lock before the script has ended: a server runs one at a time.
-- KEYS      the caller's, the record of the lock
-- ARGV      the caller's, the token
local lock = table.remove(KEYS)
local token = table.remove(ARGV)
local record, fault = look(lock)
if not record then
  return refuse('corrupt ' .. fault)
end
if not is_live(record) or text(record.token) ~= token then
  return refuse('not-held')
end
if not is_first() then
  return refuse('again')
end
return work(KEYS, ARGV)
