#!/bin/sh
# Does something to one member, counted from 0, and ends when it has happened.
#
#   member.sh start|stop|kill|freeze|thaw MEMBER
#
# The last line on stderr is one sentence that a person can act on.
set -eu

action=$1
member=$2
folder=/var/lib/testbed/$member

pid() {
    pid=$(cat "$folder/pid" 2>/dev/null || true)
    # What a member leaves behind when it was killed names nobody, or somebody else.
    if [ -z "$pid" ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != mongod ]; then
        echo "member $member doesn't run" >&2
        exit 1
    fi
}

gone() {
    # A process that nobody has reaped yet is gone too.
    [ "$(sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null || true)" = Z ] || ! [ -e "/proc/$pid" ]
}

await_end() {
    until gone; do sleep 0.02; done
}

start() {
    mkdir -p "$folder"
    if [ "$MEMBERS" -gt 1 ]; then
        # A member that is frozen is given up by those that copy from it within seconds.
        set -- --replSet leasehold --oplogSize 64 --keyFile /var/lib/testbed/key \
            --setParameter oplogNetworkTimeoutBufferSeconds=1 --setParameter oplogInitialFindMaxSeconds=3
    else
        set -- --auth
    fi
    # Of a member alone, and of none of the programs around it: Python's sleep fails when its clock is set.
    if [ -n "${FAKETIME_TIMESTAMP_FILE:-}" ]; then
        export LD_PRELOAD=/usr/local/lib/testbed/faketime.so
        export FAKETIME_TIMESTAMP_FILE="${FAKETIME_TIMESTAMP_FILE%/*}/$member"
    fi
    # Small, for there are many. An orderly end waits for nobody: the whole store ends.
    # --fork answers when the member takes connections.
    if ! mongod --fork --dbpath "$folder" --pidfilepath "$folder/pid" --logpath "$folder/log" --logappend --quiet \
        --bind_ip 127.0.0.1 --port $((PORT + member)) --nounixsocket --wiredTigerCacheSizeGB 0.25 \
        --setParameter diagnosticDataCollectionEnabled=false \
        --setParameter shutdownTimeoutMillisForSignaledShutdown=100 "$@" > /dev/null
    then
        grep -h '"s":"[EF]"' "$folder/log" >&2 || true
        echo "member $member doesn't start on port $((PORT + member))" >&2
        exit 1
    fi
}

case $action in
    start) start ;;
    stop) pid; kill -TERM "$pid"; kill -CONT "$pid"; await_end ;;
    kill) pid; kill -KILL "$pid"; await_end ;;
    freeze) pid; kill -STOP "$pid" ;;
    thaw) pid; kill -CONT "$pid" ;;
    *) echo "member.sh can't $action" >&2; exit 1 ;;
esac
