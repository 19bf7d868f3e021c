"""The tables that the crash loop writes to, in both dialects, and how to read them back for a comparison.

Each row carries `ver`, which is 1 when it is inserted and grows by one with each update, so that a lost or repeated
change shows even where a later one covers it. Each transaction ends with a row in `ledger` that says how many changes
it made. What is written by a statement that is rolled back carries the text GHOST.
"""

import base64
import json
import sqlite3
import subprocess

GHOST = "never committed"

# Table, key columns, other columns: (name, PostgreSQL type, SQLite type).
TABLES = {
    "acct": ([("id", "bigint", "INTEGER")], [("bal", "numeric(20,2)", "TEXT"), ("note", "text", "TEXT")]),
    "composite": (
        [("a", "int", "INTEGER"), ("b", "text", "TEXT")],
        [("note", "text", "TEXT"), ("ratio", "double precision", "REAL"), ("flag", "boolean", "INTEGER")],
    ),
    "moved": ([("id", "bigint", "INTEGER")], [("note", "text", "TEXT"), ("doc", "text", "TEXT")]),
    "wide": (
        [("id", "bigint", "INTEGER")],
        [
            ("note", "text", "TEXT"),
            ("doc", "text", "TEXT"),
            ("raw", "bytea", "BLOB"),
            ("at", "timestamptz", "TEXT"),
            ("tags", "jsonb", "TEXT"),
        ],
    ),
    "churn": ([("id", "bigint", "INTEGER")], [("note", "text", "TEXT")]),
    "gone": ([("id", "bigint", "INTEGER")], [("note", "text", "TEXT")]),
    "ledger": ([("id", "text", "TEXT")], [("changes", "int", "INTEGER")]),
}


def schema(dialect):
    """The statements that make the tables."""
    column = 1 if dialect == "postgres" else 2
    for table, (keys, others) in TABLES.items():
        columns = [f"{each[0]} {each[column]} NOT NULL" for each in keys]
        columns.append("ver int" if dialect == "postgres" else "ver INTEGER")
        columns += [f"{each[0]} {each[column]}" for each in others]
        yield f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({', '.join(each[0] for each in keys)}))"


def columns(table):
    keys, others = TABLES[table]
    return [each[0] for each in keys] + ["ver"] + [each[0] for each in others]


def key_of(table, row):
    return tuple(row[each[0]] for each in TABLES[table][0])


def sqlite_rows(path, table):
    """The table's rows as the events' JSON has them."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as database:
        for values in database.execute(f"SELECT {', '.join(columns(table))} FROM {table}"):
            yield {
                name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
                for name, value in zip(columns(table), values)
            }


# What the server's own output leaves to the reader, said in SQL.
POSTGRES_TEXT = {
    "numeric(20,2)": "{0}::text",
    "bytea": "translate(encode({0}, 'base64'), E'\\n', '')",
    "timestamptz": "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'",
}


def postgres_rows(psql, table):
    """The table's rows as the events' JSON has them, read by `psql`, a command that ends in its options."""
    types = {each[0]: each[1] for part in TABLES[table] for each in part}
    fields = [
        f"{POSTGRES_TEXT.get(types.get(name), '{0}').format(name)} AS {name}" for name in columns(table)
    ]
    query = f"SELECT row_to_json(r) FROM (SELECT {', '.join(fields)} FROM {table}) r"
    output = subprocess.run([*psql, "-c", query], stdout=subprocess.PIPE, check=True, text=True).stdout
    return (json.loads(line) for line in output.splitlines() if line)
