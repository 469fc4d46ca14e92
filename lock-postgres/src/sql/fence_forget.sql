-- Forgets what the resource has seen; a row if it had seen something.
-- {{resource}} its name in hex digits
DELETE FROM {{fences}} AS f
WHERE f.resource = pg_catalog.convert_from(pg_catalog.decode('{{resource}}', 'hex'), 'UTF8') COLLATE "C"
RETURNING f.token
