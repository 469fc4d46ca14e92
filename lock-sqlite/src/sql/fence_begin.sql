-- Fails in a transaction, as it may be meant to.
BEGIN;
