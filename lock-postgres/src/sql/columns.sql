-- What came to the table after its first programs, which name their columns and go on using it.

-- Whoever waits for the whole table keeps all who come after it waiting, renewals too: so for less than they put up with.
-- If it gives up because somebody's transaction has the table, nothing has happened; run it again.
SELECT set_config('lock_timeout', '100', true);

-- The last scheduled time of this job that was used up, in microseconds since 1970. It stays as the token does.
ALTER TABLE {{locks}} ADD COLUMN IF NOT EXISTS last_tick bigint;
