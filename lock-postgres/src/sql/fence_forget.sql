-- Forgets what the resource has seen; a row if it had seen something.
-- {{resource}} its name in hex digits
DELETE FROM {{fences}} AS f
WHERE f.resource = convert_from(decode('{{resource}}', 'hex'), 'UTF8') COLLATE "C"
RETURNING f.token
