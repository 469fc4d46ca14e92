-- What is known of one lock.
-- $1 the name
SELECT
    l.name::text AS name,
    CASE WHEN l.expires_at > clock.at THEN l.owner END::text AS owner,
    l.token,
    floor(extract(epoch FROM l.expires_at - clock.at) * 1000000)::bigint AS expires_in,
    floor(extract(epoch FROM l.free_at - clock.at) * 1000000)::bigint AS free_in,
    l.holder::text AS holder
FROM {{locks}} AS l
CROSS JOIN (SELECT clock_timestamp() AS at OFFSET 0) AS clock
WHERE l.name = $1::text COLLATE "C"
