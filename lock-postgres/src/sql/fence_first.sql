-- The first fence of a resource; a row if it was.
-- {{resource}} and {{lock}} names in hex digits; {{token}}
INSERT INTO {{fences}} AS f (resource, lock, token)
VALUES (pg_catalog.convert_from(pg_catalog.decode('{{resource}}', 'hex'), 'UTF8'), pg_catalog.convert_from(pg_catalog.decode('{{lock}}', 'hex'), 'UTF8'), {{token}})
ON CONFLICT (resource) DO NOTHING
RETURNING f.token
