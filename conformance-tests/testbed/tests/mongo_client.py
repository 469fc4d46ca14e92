"""A client of MongoDB for the tests, in the container: mongo_client.py URL write|read|set-name.

Writes are acknowledged by a majority, on disk.
"""

import sys

from pymongo import MongoClient, WriteConcern

url, action = sys.argv[1:]
client = MongoClient(url, serverSelectionTimeoutMS=20_000)
kept = client.get_default_database().get_collection("kept", write_concern=WriteConcern("majority", wtimeout=20_000, j=True))
if action == "write":
    kept.insert_one({"n": 42})
elif action == "read":
    print([document["n"] for document in kept.find()])
elif action == "set-name":
    print(client.admin.command("hello").get("setName"))
