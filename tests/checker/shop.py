"""The tables that the crash loop writes to, in each dialect, and how to read them back for a comparison.

Each row carries `ver`, which is 1 when it is inserted and grows by one with each update, so that a lost or repeated
change shows even where a later one covers it. Each transaction ends with a row in `ledger` that says how many changes
it made. What is written by a statement that is rolled back carries the text GHOST.
"""

import base64
import json
import sqlite3
import subprocess

GHOST = "never committed"

# The dialects, in the order of a column's types.
DIALECTS = ("postgres", "sqlite", "mysql")

# Kinds of columns, by name of their PostgreSQL type: PostgreSQL, SQLite, MySQL.
TYPES = {
    "bigint": ("bigint", "INTEGER", "bigint"),
    "int": ("int", "INTEGER", "int"),
    "numeric": ("numeric(20,2)", "TEXT", "decimal(20,2)"),
    "text": ("text", "TEXT", "longtext"),
    # MySQL has no text of any length in a key; its default collation takes case and accents for the same.
    "key": ("text", "TEXT", "varchar(60) COLLATE utf8mb4_bin"),
    "double": ("double precision", "REAL", "double"),
    "boolean": ("boolean", "INTEGER", "tinyint"),
    "bytea": ("bytea", "BLOB", "longblob"),
    "timestamptz": ("timestamptz", "TEXT", "timestamp(6) NULL"),
    "jsonb": ("jsonb", "TEXT", "json"),
}

# Table, key columns, other columns: (name, kind).
TABLES = {
    "acct": ([("id", "bigint")], [("bal", "numeric"), ("note", "text")]),
    "composite": ([("a", "int"), ("b", "key")], [("note", "text"), ("ratio", "double"), ("flag", "boolean")]),
    "moved": ([("id", "bigint")], [("note", "text"), ("doc", "text")]),
    "wide": (
        [("id", "bigint")],
        [("note", "text"), ("doc", "text"), ("raw", "bytea"), ("at", "timestamptz"), ("tags", "jsonb")],
    ),
    "churn": ([("id", "bigint")], [("note", "text")]),
    "gone": ([("id", "bigint")], [("note", "text")]),
    "ledger": ([("id", "key")], [("changes", "int")]),
}


def schema(dialect):
    """The statements that make the tables."""
    column_type = lambda kind: TYPES[kind][DIALECTS.index(dialect)]
    for table, (keys, others) in TABLES.items():
        columns = [f"{name} {column_type(kind)} NOT NULL" for name, kind in keys]
        columns.append(f"ver {column_type('int')}")
        columns += [f"{name} {column_type(kind)}" for name, kind in others]
        yield f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({', '.join(name for name, _ in keys)}))"


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


# What PostgreSQL's own output leaves to the reader, said in SQL.
POSTGRES_TEXT = {
    "numeric": "{0}::text",
    "bytea": "translate(encode({0}, 'base64'), E'\\n', '')",
    "timestamptz": "rtrim(rtrim(to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), '0'), '.') || 'Z'",
}

# The same for MySQL and MariaDB.
MYSQL_TEXT = {
    "numeric": "CAST({0} AS CHAR)",
    "bytea": "REPLACE(TO_BASE64({0}), '\n', '')",
    "timestamptz": "DATE_FORMAT({0}, '%Y-%m-%dT%H:%i:%s.%fZ')",
    "jsonb": "JSON_EXTRACT({0}, '$')",
}


def fields(table, texts):
    """Name and expression of each column."""
    kinds = dict(pair for part in TABLES[table] for pair in part)
    return [(name, texts.get(kinds.get(name), "{0}").format(name)) for name in columns(table)]


def json_lines(command, query):
    """What a client prints for a query: one JSON object a line."""
    output = subprocess.run([*command, query], stdout=subprocess.PIPE, check=True, text=True).stdout
    return (json.loads(line) for line in output.splitlines() if line)


def postgres_rows(psql, table):
    """The table's rows as the events' JSON has them, read by `psql`, a command that ends in its options."""
    named = [f"{expression} AS {name}" for name, expression in fields(table, POSTGRES_TEXT)]
    return json_lines([*psql, "-c"], f"SELECT row_to_json(r) FROM (SELECT {', '.join(named)} FROM {table}) r")


def mysql_rows(client, table):
    """The table's rows as the events' JSON has them, read by `mariadb`, a command that ends in its options."""
    pairs = [f"'{name}', {expression}" for name, expression in fields(table, MYSQL_TEXT)]
    query = f"SET time_zone = '+00:00'; SELECT JSON_OBJECT({', '.join(pairs)}) FROM {table}"
    return json_lines([*client, "--raw", "-e"], query)
