"""What a shell of MongoDB would be for.

    admin.py create-user        the first user, on a server that has none
    admin.py initiate           makes the members a replica set
    admin.py await-members      waits until each has the data and votes
    admin.py step-down MEMBER   lets another than this primary, counted from 0, be elected
"""

import os
import sys
import time

from pymongo import MongoClient
from pymongo.errors import AutoReconnect

PORT = int(os.environ["PORT"])
MEMBERS = int(os.environ["MEMBERS"])
USER = os.environ["MONGO_USER"]
PASSWORD = os.environ["MONGO_PASSWORD"]

PRIMARY, SECONDARY = 1, 2


def connect(member, **login):
    return MongoClient("127.0.0.1", PORT + member, directConnection=True, serverSelectionTimeoutMS=10_000, **login)


def administrator(member):
    return connect(member, username=USER, password=PASSWORD, authSource="admin").admin


def create_user():
    # Whoever comes over the loopback may create the first user.
    connect(0).admin.command("createUser", USER, pwd=PASSWORD, roles=["root"])


def initiate():
    members = [{"_id": member, "host": f"127.0.0.1:{PORT + member}"} for member in range(MEMBERS)]
    # Tests take primaries away: another shall be there soon, and the others shall follow it.
    settings = {
        "electionTimeoutMillis": 1500,
        "heartbeatIntervalMillis": 500,
        "heartbeatTimeoutSecs": 2,
        "catchUpTimeoutMillis": 2000,
        "chainingAllowed": False,
    }
    administrator(0).command("replSetInitiate", {"_id": "leasehold", "members": members, "settings": settings})


def await_members():
    deadline = time.monotonic() + 50
    admin = administrator(0)
    while True:
        states = [member["state"] for member in admin.command("replSetGetStatus")["members"]]
        if all(state in (PRIMARY, SECONDARY) for state in states):
            return
        if time.monotonic() > deadline:
            sys.exit(f"the members of the replica set don't get ready: their states are {states}")
        time.sleep(0.05)


def step_down(member):
    try:
        # It stays out of elections for ten seconds, within which another wins one.
        administrator(int(member)).command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)
    except AutoReconnect:
        # Who steps down closes its connections.
        pass


COMMANDS = {
    "create-user": create_user,
    "initiate": initiate,
    "await-members": await_members,
    "step-down": step_down,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
