#!/bin/sh
# Starts $MEMBERS servers on $PORT and the ports after it, with the data they had;
# several are a replica set, which is initiated the first time. Ends when it is
# told to, and not when a member does: members are killed one by one too.
set -eu

members=$(seq 0 $((MEMBERS - 1)))
member() {
    sh /usr/local/lib/testbed/member.sh "$@"
}

log=
stop() {
    [ -z "$log" ] || kill "$log"
    # At once: a primary would else wait for secondaries that aren't told yet.
    for member in $members; do member stop "$member" & done
    wait
    exit 0
}
trap stop TERM

starting=
for member in $members; do
    member start "$member" &
    starting="$starting $!"
done
for member in $starting; do
    wait "$member"
done

if [ "$MEMBERS" -gt 1 ] && ! [ -e /var/lib/testbed/initiated ]; then
    python3 /usr/local/lib/testbed/admin.py initiate
    touch /var/lib/testbed/initiated
fi

# To 'docker logs'. Waited for, since only then the trap acts at once, and
# members that were killed are reaped.
tail -q -n 0 -F /var/lib/testbed/*/log &
log=$!
wait "$log"
