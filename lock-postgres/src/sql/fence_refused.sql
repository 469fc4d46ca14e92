-- Fails, and with it the transaction: after a refusal it can only be rolled back, whatever its program does.
SELECT 'refused by the fence of a lock: roll back'::integer
