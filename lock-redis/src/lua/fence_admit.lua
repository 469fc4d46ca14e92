-- Lets the caller's script work if the register lets its fence pass, and raises the register first.
-- KEYS      the caller's, the register
-- ARGV      the caller's, the fence as TOKEN@LOCK, 'again' or 'once'
--
-- The register is a string: the highest fence that the resource has seen. A fence has one spelling, so equal ones are
-- equal texts.
local register = table.remove(KEYS)
local pass = table.remove(ARGV)
local fence = table.remove(ARGV)

-- As text, digit by digit: a number of Lua's tells no neighbours apart beyond 2^53.
local function is_below(token, highest)
  if #token ~= #highest then
    return #token < #highest
  end
  for at = 1, #token do
    local digit, other = string.byte(token, at), string.byte(highest, at)
    if digit ~= other then
      return digit < other
    end
  end
  return false
end

-- Token and lock of a fence, or nothing if it is none: the token is a whole number from 1 to 2^63 - 1. That the lock is
-- spelled rightly shows when it is compared.
local function parts(text)
  local token, lock = string.match(text, '^([1-9]%d*)@([%w%-%._~/:%%]+)$')
  if token and not is_below('9223372036854775807', token) then
    return token, lock
  end
end

local seen = redis.pcall('GET', register)
if type(seen) == 'table' then
  if string.find(seen.err, 'WRONGTYPE', 1, true) then
    return refuse('corrupt the key holds something else than a fence')
  end
  return seen
end
if seen == fence then
  if pass == 'once' then
    return refuse('seen ' .. seen)
  end
elseif seen then
  local token, lock = parts(fence)
  local highest, fenced_by = parts(seen)
  if not highest then
    return refuse('corrupt the register holds something else than a fence')
  end
  if fenced_by ~= lock or is_below(token, highest) then
    return refuse('seen ' .. seen)
  end
end
if not is_first() then
  return refuse('again')
end
-- Before the work: if this can't be written, nothing is. Also where it changes nothing, since a server that takes no writes
-- (a replica, a primary without its replicas) has to say so: what it knows may be old, and others write behind its back.
-- A register has no expiry; one that somebody else set goes.
redis.call('SET', register, fence)
return work(KEYS, ARGV)
