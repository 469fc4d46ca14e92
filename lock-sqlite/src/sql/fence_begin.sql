-- Fails in a transaction, as it is meant to.
BEGIN;
