-- Hands out locks that can be had; says of the others who has them.
-- KEYS     the records, all different
-- ARGV[1]  the grace, ARGV[2] the retention of a record, in microseconds
--          then for each key: the owner, the ttl and the waiting time in microseconds (0: doesn't wait), the holder, the
--          tick that it is for, and that tick again if the grant uses it up ('' for none)
-- Returns for each key {1, token}, {0, microseconds until it is free, holder or false}, {2, last tick} if the tick was
-- used up, or {-1, why}.
local grace, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local records, faults = {}, {}
for at, key in ipairs(KEYS) do
  records[at], faults[at] = look(key)
end
local answers = {}
for at, key in ipairs(KEYS) do
  local record, first = records[at], 3 + (at - 1) * 6
  local owner, ttl, wait, holder = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2]), ARGV[first + 3]
  local tick, used = tonumber(ARGV[first + 4]), ARGV[first + 5]
  local ends = now + ttl
  if not record then
    answers[at] = { -1, faults[at] }
  elseif is_live(record) and record.owner == owner then
    -- The same call again: the same token, and never a shorter lease.
    if ends > record.ends then
      local free_at = math.max(record.free_at, ends + grace)
      redis.call('HSET', key, 'until', text(ends), 'free_at', text(free_at))
      keep(key, ends, retention)
    end
    answers[at] = { 1, text(record.token) }
  -- After the owner's own: a call whose answer was lost isn't refused its own tick. Before the others': it is used up though
  -- somebody holds the lock.
  elseif tick and record.last_tick >= tick then
    answers[at] = { 2, text(record.last_tick) }
  elseif record.free_at <= now then
    -- A hybrid logical clock: it rises whatever the clock does, and also if the record was lost.
    local token = text(math.max(record.token + 1, now))
    local fields = { 'token', token, 'owner', owner, 'until', text(ends), 'free_at', text(ends + grace), 'holder', holder }
    if used ~= '' then
      -- It is later than the last one, or it would have been refused.
      fields[11], fields[12] = 'last_tick', used
    end
    redis.call('HSET', key, unpack(fields))
    keep(key, ends, retention)
    answers[at] = { 1, token }
  else
    -- A mark that is there already is not made again.
    if wait > 0 and record.wanted < now + wait then
      redis.call('HSET', key, 'wanted', text(now + wait))
    end
    answers[at] = { 0, text(record.free_at - now), is_live(record) and record.holder or false }
  end
end
return answers
