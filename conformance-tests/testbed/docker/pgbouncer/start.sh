#!/bin/sh
# Starts PgBouncer on $PORT, before the PostgreSQL on $UPSTREAM_PORT of the same host.
set -eu
sed "s/@PORT@/$PORT/; s/@UPSTREAM_PORT@/$UPSTREAM_PORT/" /etc/pgbouncer/testbed.ini > /tmp/pgbouncer.ini
exec pgbouncer /tmp/pgbouncer.ini
