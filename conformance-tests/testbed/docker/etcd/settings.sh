# What all the servers of etcd have; sourced by what starts them. Whatever isn't
# said is etcd's default: every write is on the disk before its answer.
#
# Elections are settled within a second or so, and the server's least time to
# live of a lease is a second: one and a half times that of an election.
set -- --heartbeat-interval=60 --election-timeout=600 --logger=zap "$@"
# It takes every variable with such a name for a setting, and warns.
unset ETCD_USER ETCD_PASSWORD
