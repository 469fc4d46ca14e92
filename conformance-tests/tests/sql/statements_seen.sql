-- How many statements the server has seen in the database $1. Asked from another database, so it doesn't count itself.
SELECT coalesce(sum(calls), 0)::bigint
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1);
