-- Whether the register's table is there. Needs no right on the schema.
-- {{name}} the schema's name in hex digits
SELECT
    pg_catalog.current_setting('server_encoding') AS encoding,
    -- The catalogue answers without a right on the schema; to_regclass would refuse.
    EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = asked_for.name) AS has_schema,
    c.oid IS NOT NULL AS has_table,
    pg_catalog.obj_description(c.oid, 'pg_class') AS table_comment
FROM (SELECT pg_catalog.convert_from(pg_catalog.decode('{{name}}', 'hex'), 'UTF8') AS name) AS asked_for
LEFT JOIN pg_catalog.pg_class AS c
    ON c.relname = 'fences'
    AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = asked_for.name)
