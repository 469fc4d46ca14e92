#!/bin/sh
# Starts one server of an ensemble, each of which has an address of its own.
#
#   member.sh MEMBER ADDRESS...
#
# MEMBER is counted from 0; the addresses are those of all members, in order.
set -eu

. /usr/local/lib/testbed/java.sh
member=$1
shift
home=/var/lib/testbed/member
mkdir -p "$home"
echo "$member" > "$home/myid"
{
    cat /usr/local/share/testbed/zoo.cfg
    echo "dataDir=$home"
    # On its loopback too, for zkcli.sh in the container, cut off or not.
    echo 'clientPort=2181'
    number=0
    for address; do
        echo "server.$number=$address:2888:3888"
        number=$((number + 1))
    done
} > "$home/zoo.cfg"
server "$home/zoo.cfg"
