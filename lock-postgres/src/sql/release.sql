-- Gives locks back; returns those that were held, and whether somebody waits for them.
-- $1 names, all different; $2 owners; $3 tokens, NULL where the asker never learned it
-- $4 for how many microseconds each stays taken all the same; $5 whether a crash must not undo it
-- $6 the ticks that are used up with it, NULL where none is
WITH durable AS MATERIALIZED (
    -- A release that a crash undoes becomes an expiry, so it needn't wait for the disk.
    SELECT CASE
        WHEN NOT $5::boolean THEN set_config('synchronous_commit', 'off', true)
        WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', true)
        ELSE current_setting('synchronous_commit')
    END AS level
),
asked AS MATERIALIZED (
    SELECT a.name COLLATE "C" AS name, a.owner, a.token, a.keep * interval '1 microsecond' AS keep, a.done
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $6::bigint[]) AS a (name, owner, token, keep, done)
    CROSS JOIN durable
    WHERE durable.level IS NOT NULL  -- The planner drops what nobody reads.
),
-- Locked in the order of the names, as in renew.sql. Never by the name alone: that would free the successor's lock.
locked AS MATERIALIZED (
    SELECT l.name, l.wanted_until, asked.keep, asked.done
    FROM {{locks}} AS l
    JOIN asked
        ON l.name = asked.name AND l.owner = asked.owner AND (asked.token IS NULL OR l.token = asked.token)
    ORDER BY l.name
    FOR NO KEY UPDATE OF l  -- A transaction that is guarded (fence_guard.sql) doesn't hold this up.
)
UPDATE {{locks}} AS l
-- The mark goes with the announcement: who still waits afterwards asks again and marks it anew.
SET (owner, holder, wanted_until, expires_at, free_at, last_tick) = (
    SELECT NULL::text, NULL::jsonb, NULL::timestamptz, at, at + locked.keep, greatest(l.last_tick, locked.done)
    FROM (SELECT clock_timestamp() AS at OFFSET 0) AS look
)
FROM locked
WHERE l.name = locked.name AND l.expires_at > clock_timestamp()
RETURNING l.name::text AS name, coalesce(locked.wanted_until > clock_timestamp(), false) AS wanted
