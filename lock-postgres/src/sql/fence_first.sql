-- The first fence of a resource; a row if it was.
-- {{resource}} and {{lock}} names in hex digits; {{token}}
INSERT INTO {{fences}} AS f (resource, lock, token)
VALUES (convert_from(decode('{{resource}}', 'hex'), 'UTF8'), convert_from(decode('{{lock}}', 'hex'), 'UTF8'), {{token}})
ON CONFLICT (resource) DO NOTHING
RETURNING f.token
