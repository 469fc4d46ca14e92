#!/bin/bash
# Starts three servers of one ensemble on the host's loopback: for clients on
# $PORT and the two ports after it, for one another on the six after those. Ends
# when it is told to, or when one of them does.
set -eu

. /usr/local/lib/testbed/java.sh
for member in 0 1 2; do
    home=/var/lib/testbed/$member
    mkdir -p "$home"
    echo "$member" > "$home/myid"
    {
        cat /usr/local/share/testbed/zoo.cfg
        echo "dataDir=$home"
        echo "clientPort=$((PORT + member))"
        echo 'clientPortAddress=127.0.0.1'
        for other in 0 1 2; do echo "server.$other=127.0.0.1:$((PORT + 3 + other)):$((PORT + 6 + other))"; done
    } > "$home/zoo.cfg"
    server "$home/zoo.cfg" &
done
trap 'kill $(jobs -p); wait; exit 0' TERM
wait -n || true
kill $(jobs -p) || true
wait
exit 1
