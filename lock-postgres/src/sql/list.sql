-- A page of the locks that have a row, in byte order of their names.
-- $1 what the names begin with; $2 the last name of the page before, or ''; $3 how many at most
SELECT
    l.name::text AS name,
    CASE WHEN l.expires_at > clock.at THEN l.owner END::text AS owner,
    l.token,
    floor(extract(epoch FROM l.expires_at - clock.at) * 1000000)::bigint AS expires_in,
    floor(extract(epoch FROM l.free_at - clock.at) * 1000000)::bigint AS free_in,
    l.holder::text AS holder
FROM {{locks}} AS l
CROSS JOIN (SELECT clock_timestamp() AS at OFFSET 0) AS clock
WHERE l.name >= $1::text COLLATE "C"  -- Where the index starts to read.
    AND l.name > $2::text COLLATE "C"
    AND starts_with(l.name, $1::text)  -- Unlike LIKE, it knows no wildcards.
ORDER BY l.name
LIMIT $3::bigint
