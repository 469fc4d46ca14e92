-- Waits until no take-over is being committed where this lock's would be. The lock that it waits for is given back at once:
-- for as long as it is held, nobody takes anything over there.
-- {{place}} of the lock's take-overs
SAVEPOINT leasehold_wait;
SELECT pg_catalog.pg_advisory_xact_lock({{takeovers}}, {{place}});
ROLLBACK TO SAVEPOINT leasehold_wait;
RELEASE SAVEPOINT leasehold_wait;
