-- What the scripts share; it stands before each of them.
--
-- A lock's record is a hash. Its fields:
--   token    the fencing token of the last grant; all that is left of a lock that was released
--   owner    who holds it: 32 hex digits, fresh for each acquire call
--   until    the end of the lease, on this server's clock
--   free_at  from when others may take it: the end plus the holder's grace, or later if it was released but kept taken
--   holder   who that is, for people: JSON
--   wanted   until when a release is to be published, because somebody waits
--   last_tick  the last tick that was used up; it outlives leases and releases
-- Times and ticks are microseconds since the Unix epoch. A field that isn't there counts as zero, as nobody, or as no tick.
-- The key's own expiry is the retention of the record and never the lease: a token outlives its lease.

-- One look at the clock for all that a script does.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- A number as text. `tostring` prints 1.7e+15.
local function text(number)
  return string.format('%.0f', number)
end

-- The record of a lock, or nil and why it can't be read. Scripts read all their records before they write the first:
-- what fails half-way is not applied by half.
local function look(key)
  local fields = redis.pcall('HMGET', key, 'token', 'owner', 'until', 'free_at', 'holder', 'wanted', 'last_tick')
  if fields.err then
    if string.find(fields.err, 'WRONGTYPE', 1, true) then
      return nil, 'the key holds something else than a lock'
    end
    redis.call('HMGET', key, 'token')  -- Fails as well, and ends the script.
  end
  local record = {
    token = tonumber(fields[1] or 0),
    owner = fields[2],
    ends = tonumber(fields[3] or 0),
    free_at = tonumber(fields[4] or 0),
    holder = fields[5],
    wanted = tonumber(fields[6] or 0),
    -- Below the first, which is 0.
    last_tick = tonumber(fields[7] or -1),
    known = fields[1] ~= false,
  }
  if not (record.token and record.ends and record.free_at and record.wanted and record.last_tick) then
    return nil, 'a field of the record is no number'
  end
  -- Beyond 2^53 - 1 a double can't count; also false for what is not a number.
  if not (record.token >= 0 and record.token < 9007199254740991) then
    return nil, 'the token of the record is out of range'
  end
  if not (record.last_tick >= -1 and record.last_tick <= 9007199254740991) then
    return nil, 'the last tick of the record is out of range'
  end
  if record.owner and not record.known then
    return nil, 'the record has no token'
  end
  return record
end

local function is_live(record)
  return record.owner and record.ends > now
end

-- The record may go once `retention` has passed after `ends`.
local function keep(key, ends, retention)
  redis.call('PEXPIREAT', key, text(math.ceil((ends + retention) / 1000)))
end

-- Wakes who waits for this lock. The name stands in braces at the end of the key. That it can't be published (a right
-- is missing) must not undo what was written.
local function announce(channel, key)
  redis.pcall('PUBLISH', channel, string.match(key, '^[^{]*{(.*)}$'))
end
