-- What the resource has seen.
-- {{resource}} its name in hex digits
SELECT f.lock::text AS lock, f.token
FROM {{fences}} AS f
WHERE f.resource = pg_catalog.convert_from(pg_catalog.decode('{{resource}}', 'hex'), 'UTF8') COLLATE "C"
