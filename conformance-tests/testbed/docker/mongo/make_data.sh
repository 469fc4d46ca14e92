#!/bin/sh
# Makes the data of the first member: the user, whom the others get with the
# rest when they join it, and the key by which members know one another. Runs
# once, in the build of the image.
set -eu

head -c 600 /dev/urandom | base64 > /var/lib/testbed/key
chmod 400 /var/lib/testbed/key

export PORT=27017 MEMBERS=1
sh /usr/local/lib/testbed/member.sh start 0
python3 /usr/local/lib/testbed/admin.py create-user
sh /usr/local/lib/testbed/member.sh stop 0
# Files of a hundred megabytes that are preallocated and empty; mongod makes them
# anew. The journal itself has to stay: the data remembers how far in it they
# are, and after a crash what is written in a new one before that is passed over.
rm -rf /var/lib/testbed/0/journal/WiredTigerPreplog.* /var/lib/testbed/0/log /var/lib/testbed/0/pid
