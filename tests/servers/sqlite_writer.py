"""Writes to a SQLite database from a process of its own, in Python's SQLite.

Reads a JSON array of statements a line from standard input, runs them one by one (each in its own transaction, unless they
say BEGIN), and answers a line: the rows of the last one, or its error.
"""

import json
import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
connection.text_factory = bytes
print(json.dumps({"version": sqlite3.sqlite_version}), flush=True)
for line in sys.stdin:
    try:
        rows = []
        for statement in json.loads(line):
            rows = connection.execute(statement).fetchall()
        answer = {"rows": [[value.decode("latin-1") if isinstance(value, bytes) else value for value in row] for row in rows]}
    except sqlite3.Error as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
