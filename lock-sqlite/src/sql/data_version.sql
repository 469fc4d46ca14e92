-- A number that differs from the last one asked for on this connection if another connection has committed since.
PRAGMA data_version;
