-- What is known of locks. It only reads.
-- KEYS     the records
-- Returns for each key false where there is no record, {token, microseconds until it is free}, the same and the owner,
-- the microseconds until the lease ends and the holder if somebody holds it, or {-1, why}.
local answers = {}
for at, key in ipairs(KEYS) do
  local record, fault = look(key)
  if not record then
    answers[at] = { -1, fault }
  elseif not record.known then
    answers[at] = false
  elseif is_live(record) then
    answers[at] = { text(record.token), text(record.free_at - now), record.owner, text(record.ends - now), record.holder }
  else
    answers[at] = { text(record.token), text(record.free_at - now) }
  end
end
return answers
