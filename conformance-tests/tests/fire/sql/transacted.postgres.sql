-- In the order of their commits: writers hold the lock, so numbers are drawn one after the other.
SELECT pg_advisory_lock(7307182319120318567);
CREATE TABLE IF NOT EXISTS fire_transacted (n bigserial PRIMARY KEY, entry text NOT NULL);
SELECT pg_advisory_unlock(7307182319120318567);
