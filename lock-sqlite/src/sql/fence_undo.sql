-- Undoes what a transaction wrote. The driver and its user take it for open still, so there is one again.
ROLLBACK;

BEGIN;
