-- A higher fence of a resource whose row this transaction has locked.
-- {{resource}} its name in hex digits; {{token}}
UPDATE {{fences}} AS f
SET token = {{token}}
WHERE f.resource = pg_catalog.convert_from(pg_catalog.decode('{{resource}}', 'hex'), 'UTF8') COLLATE "C" AND f.token < {{token}}
RETURNING f.token
