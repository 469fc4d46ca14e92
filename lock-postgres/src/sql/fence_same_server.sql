-- Fails unless it was this server that was asked elsewhere (fence_look_elsewhere.sql).
-- {{server}} which it was
SELECT (CASE
    WHEN (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint <> {{server}}
        THEN 'the fence of a lock was seen at another server'
    ELSE '0'
END)::integer;
