#!/bin/sh
# Waits until the server on $PORT has what it needs of its primary.
#
#   linked.sh replica    it has the primary's data and follows it
#   linked.sh sentinel   it watches the primary and knows as many replicas as
#                        that one serves
#
# The last line on stderr is one sentence that a person can act on.
set -eu

replica() {
    redis-cli -p "$PORT" info replication | grep -q '^master_link_status:up'
}

sentinel() {
    known=$(REDISCLI_AUTH='' redis-cli -p "$PORT" info sentinel | tr -d '\r')
    served=$(redis-cli -p "$UPSTREAM_PORT" info replication | tr -d '\r' | sed -n 's/^connected_slaves://p')
    echo "$known" | grep -q "^master0:name=leasehold,status=ok,.*,slaves=$served,"
}

tries=0
until "$1"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 200 ]; then
        echo "the $1 on $PORT doesn't find its primary" >&2
        exit 1
    fi
    sleep 0.1
done
