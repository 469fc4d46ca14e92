-- What a client must know of the server before it starts. Needs no right on the schema but USAGE.
-- {{name}} the schema's name in hex digits; {{asked}} the settings that our startup packet asked for, each after a comma
SELECT
    current_setting('server_version_num')::integer AS version,
    current_setting('server_encoding') AS encoding,
    -- Visible to every role. Without it a crash of the machine may lose acknowledged grants.
    current_setting('fsync') = 'on' AS fsync,
    pg_is_in_recovery() AS standby,
    -- The catalogue answers without a right on the schema; to_regclass would refuse.
    EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = asked_for.name) AS has_schema,
    c.oid IS NOT NULL AS has_table,
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname = 'last_tick' AND NOT attisdropped
    ) AS has_ticks,
    pg_catalog.obj_description(c.oid, 'pg_class') AS table_comment,
    -- A pooler may have dropped them.
    (
        SELECT coalesce(bool_and(s.setting = a.value), true)
        FROM (VALUES (NULL, NULL){{asked}}) AS a (name, value)
        JOIN pg_catalog.pg_settings AS s ON s.name = a.name
    ) AS as_asked,
    floor(extract(epoch FROM clock_timestamp() - mine.backend_start) * 1000000)::bigint AS session_age
FROM (SELECT convert_from(decode('{{name}}', 'hex'), 'UTF8') AS name) AS asked_for
CROSS JOIN pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS mine
LEFT JOIN pg_catalog.pg_class AS c
    ON c.relname = 'locks'
    AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = asked_for.name)
