-- Readers don't wait for writers, and a commit is one fsync. The setting stays with the file.
PRAGMA journal_mode = WAL;
