-- A higher fence of a resource whose row this transaction has locked.
-- {{resource}} its name in hex digits; {{token}}
UPDATE {{fences}} AS f
SET token = {{token}}
WHERE f.resource = convert_from(decode('{{resource}}', 'hex'), 'UTF8') COLLATE "C" AND f.token < {{token}}
RETURNING f.token
