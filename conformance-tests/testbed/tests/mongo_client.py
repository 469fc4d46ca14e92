"""A client of MongoDB for the tests, in the container: mongo_client.py URL write|read|set-name|time.

Writes are acknowledged by a majority, on disk.
"""

import sys
from datetime import timezone

from pymongo import MongoClient, WriteConcern

url, action = sys.argv[1:]
client = MongoClient(url, serverSelectionTimeoutMS=20_000)
kept = client.get_database("leasehold").get_collection("kept", write_concern=WriteConcern("majority", wtimeout=20_000, j=True))
if action == "write":
    kept.insert_one({"n": 42})
elif action == "read":
    print([document["n"] for document in kept.find()])
elif action == "time":
    # In microseconds since the epoch, as this server says.
    print(round(client.admin.command("hello")["localTime"].replace(tzinfo=timezone.utc).timestamp() * 1_000_000))
elif action == "set-name":
    print(client.admin.command("hello").get("setName"))
