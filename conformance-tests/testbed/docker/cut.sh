#!/bin/sh
# Cuts the connections of the container that it runs in, as its root, with the
# capability NET_ADMIN. Packets are dropped in both directions and nobody is told.
#
#   cut.sh from ADDRESS...    those with these
#   cut.sh all                all but those with itself
#   cut.sh nothing            none: it is healed
#
# A container that is started again has none cut.
set -eu

cut=$1
shift
case $cut in
    from)
        for address; do
            iptables -w -A INPUT -s "$address" -j DROP
            iptables -w -A OUTPUT -d "$address" -j DROP
        done
        ;;
    all)
        iptables -w -A INPUT ! -i lo -j DROP
        iptables -w -A OUTPUT ! -o lo -j DROP
        ;;
    nothing)
        iptables -w -F INPUT
        iptables -w -F OUTPUT
        ;;
    *) echo "cut.sh can't cut $cut" >&2; exit 1 ;;
esac
