-- Undoes what a transaction wrote, whoever began it. Fails where there is none, as it may.
ROLLBACK;
