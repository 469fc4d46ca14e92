-- Fails with 25P01 where no transaction is open: what a guard locks would be free again at the end of its own message, and what
-- is written then stands at once.
SAVEPOINT leasehold;
RELEASE SAVEPOINT leasehold;
