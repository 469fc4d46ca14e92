#!/bin/sh
# Starts Redis on $PORT of the host's loopback.
#
#   start.sh [--SETTING VALUE...]...
#
# The settings go into a file, once, and what Redis itself rewrites there stays:
# a replica that was promoted is a primary after a restart too.
set -eu

conf=/var/lib/testbed/redis.conf
if ! [ -e "$conf" ]; then
    {
        sed "s/@PORT@/$PORT/; s/@BUS_PORT@/$((PORT + 1))/" /usr/local/share/testbed/redis.conf
        for word; do
            case $word in
                --*) printf '\n%s' "${word#--}" ;;
                *) printf ' "%s"' "$word" ;;
            esac
        done
        echo
    } > "$conf.new"
    # Whole or not at all, should we be killed here.
    mv "$conf.new" "$conf"
fi
exec redis-server "$conf"
