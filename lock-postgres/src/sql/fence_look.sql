-- What the resource has seen, locked until the transaction ends: nobody raises it meanwhile. Equal tokens pass with no more than
-- this, and write no version of the row.
-- {{resource}} its name in hex digits
SELECT f.lock::text AS lock, f.token
FROM {{fences}} AS f
WHERE f.resource = pg_catalog.convert_from(pg_catalog.decode('{{resource}}', 'hex'), 'UTF8') COLLATE "C"
FOR NO KEY UPDATE OF f
