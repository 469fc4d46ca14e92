-- Extends live leases; returns the names of those that are still held.
-- $1 names, all different; $2 owners; $3 tokens; $4 ttls in microseconds; $5 the grace in microseconds
WITH durable AS MATERIALIZED (
    -- Lost in a crash, the lease would end earlier than its holder believes. Only raised, as in acquire.sql.
    SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
        THEN set_config('synchronous_commit', 'on', true)
        ELSE current_setting('synchronous_commit')
    END AS level
),
asked AS MATERIALIZED (
    SELECT a.name COLLATE "C" AS name, a.owner, a.token, a.ttl * interval '1 microsecond' AS ttl
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS a (name, owner, token, ttl)
    CROSS JOIN durable
    WHERE durable.level IS NOT NULL  -- The planner drops what nobody reads.
),
-- Locked in the order of the names, which an UPDATE alone doesn't promise: so no two groups deadlock.
locked AS MATERIALIZED (
    SELECT l.name, asked.ttl
    FROM {{locks}} AS l
    JOIN asked ON l.name = asked.name AND l.owner = asked.owner AND l.token = asked.token
    ORDER BY l.name
    FOR NO KEY UPDATE OF l  -- A transaction that is guarded (fence_guard.sql) doesn't hold this up.
)
UPDATE {{locks}} AS l
-- The later expiry stays: a renewal that was delayed on its way doesn't shorten a lease.
SET (expires_at, free_at) = (
    SELECT
        greatest(l.expires_at, at + locked.ttl),
        greatest(l.free_at, at + locked.ttl + $5::bigint * interval '1 microsecond')
    FROM (SELECT clock_timestamp() AS at OFFSET 0) AS look
)
FROM locked
-- An expired lease stays expired even if nobody took it.
WHERE l.name = locked.name AND l.expires_at > clock_timestamp()
RETURNING l.name::text AS name
