-- Takes a lock away from whoever holds it or rests on it; returns whether somebody held it and whether somebody waits.
-- $1 the name
WITH locked AS MATERIALIZED (
    SELECT l.name, l.owner IS NOT NULL AND l.expires_at > clock_timestamp() AS held, l.wanted_until
    FROM {{locks}} AS l
    WHERE l.name = $1::text COLLATE "C" AND l.free_at > clock_timestamp()
    FOR NO KEY UPDATE OF l  -- A transaction that is guarded (fence_guard.sql) doesn't hold this up.
)
UPDATE {{locks}} AS l
SET (owner, holder, wanted_until, expires_at, free_at) = (
    -- One look at the clock, so that nobody waits for the grace of a lease that was taken away.
    SELECT NULL::text, NULL::jsonb, NULL::timestamptz, least(l.expires_at, at), at
    FROM (SELECT clock_timestamp() AS at OFFSET 0) AS look
)
FROM locked
WHERE l.name = locked.name
RETURNING locked.held, coalesce(locked.wanted_until > clock_timestamp(), false) AS wanted
