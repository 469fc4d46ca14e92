-- Ends the sessions of the database $1 whose last statement was a LISTEN.
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE datname = $1 AND query ILIKE 'LISTEN %';
