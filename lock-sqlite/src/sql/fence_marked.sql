-- Takes the mark away, so only at the transaction's end: those that were begun within it lose their savepoints as well. Fails
-- where there is none, as it is meant to.
RELEASE SAVEPOINT leasehold_guarded;
