-- Begins a transaction of the register's own. Lost in a crash, a raise would let late writes pass: only raised, as in acquire.sql.
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT pg_catalog.set_config('synchronous_commit', 'on', true) WHERE pg_catalog.current_setting('synchronous_commit') IN ('off', 'local')
