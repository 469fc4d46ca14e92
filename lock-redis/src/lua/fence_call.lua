-- What stands before the judgement of every fenced call, and after the caller's script, which is `work` by now and sees
-- nothing of this.
--
-- A call's own keys and arguments stand after the caller's, and each piece takes its own off the end: what is left is what the
-- caller's script is given, as if nothing else had been there.
--
-- KEYS      …, the mark of this call where there is one
-- ARGV      …, for how many milliseconds the mark is kept ('': there is none)
--
-- The mark is for clusters: there the driver sends a script again by itself when a connection breaks, and the caller's
-- may not run twice.
local kept = table.remove(ARGV)
local mark
if kept ~= '' then
  mark = table.remove(KEYS)
end

-- A refusal is an error of a code of our own: no reply of a script is taken for one. One line:
--   seen TOKEN@LOCK  by what the register has seen    not-held  the lock is somebody else's, or nobody's
--   corrupt WHY      what is kept can't be read       again     this very call has been let through before
local function refuse(why)
  if mark and redis.call('EXISTS', mark) == 1 then
    why = 'again'
  end
  return { err = 'LEASEHOLD ' .. why }
end

-- Whether this call comes for the first time; it won't the next time.
local function is_first()
  return not mark or redis.call('SET', mark, '', 'NX', 'PX', kept) ~= false
end
