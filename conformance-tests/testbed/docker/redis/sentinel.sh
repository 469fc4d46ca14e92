#!/bin/sh
# Starts a sentinel on $PORT, which watches the primary on $UPSTREAM_PORT of the
# same host. What it learns it keeps in its file, over a restart.
set -eu

conf=/var/lib/testbed/sentinel.conf
if ! [ -e "$conf" ]; then
    sed "s/@PORT@/$PORT/; s/@UPSTREAM_PORT@/$UPSTREAM_PORT/" /usr/local/share/testbed/sentinel.conf > "$conf.new"
    mv "$conf.new" "$conf"
fi
exec redis-server "$conf" --sentinel
