#!/usr/bin/env python3
"""Makes a small honest example for the checker, without a server: the workload on a SQLite file, and the records that a
connector without faults but one restart would have sent of it.

    sample.py DIRECTORY
"""

import base64
import json
import pathlib
import sqlite3
import sys

import shop
import write

PARTITIONS = 3

# SQLite's own JSON knows no bytes and rounds numbers.
EXACT = {"raw": "hex({0})", "ratio": "iif({0} IS NULL, NULL, printf('%!.17g', {0}))"}


def triggers():
    yield "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT, op TEXT, old TEXT, new TEXT)"
    for table in shop.TABLES:
        def row(which):
            columns = (f"'{name}', {EXACT.get(name, '{}').format(f'{which}.{name}')}" for name in shop.columns(table))
            return f"json_object({', '.join(columns)})"

        for op, old, new in (("INSERT", "NULL", row("NEW")), ("UPDATE", row("OLD"), row("NEW")), ("DELETE", row("OLD"), "NULL")):
            yield (
                f"CREATE TRIGGER {table}_{op} AFTER {op} ON {table} "
                f"BEGIN INSERT INTO log (tbl, op, old, new) VALUES ('{table}', '{op}', {old}, {new}); END"
            )


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Topics:
    def __init__(self):
        self.records = []
        self.offsets = {}

    def send(self, table, op, key, after, position, **links):
        key_text = compact(key)
        source = {
            "backend": "sqlite", "name": "shop", "database": "shop.db", "position": position,
            "committed_at": None if op == "read" else "2026-11-23T07:25:28.123456Z",
            "transaction": None, "index": None, "last": None,
        }
        body = {"v": 1, "op": op, "schema": "main", "table": table, "key": key, "before": None, "after": after, "source": source}
        headers = {"feedline-id": f"shop/{position}", "feedline-op": op, "feedline-table": f"main.{table}", **links}
        self.append(table, key_text, compact(body), headers)
        if op == "delete":
            self.append(table, key_text, None, headers)

    def append(self, table, key, payload, headers):
        partition = sum(key.encode()) % PARTITIONS
        self.records.append({
            "topic": f"shop.main.{table}", "partition": partition, "offset": 0, "ts": 1,
            "headers": [text for pair in headers.items() for text in pair], "key": key, "payload": payload,
        })

    def lines(self, repeated):
        """As kcat prints them, after a restart that sent the stretch of records once more."""
        start, end = repeated
        for number, record in enumerate(sorted(
            [*self.records[:end], *self.records[start:end], *self.records[end:]],
            key=lambda each: (each["topic"], each["partition"]),
        )):
            yield json.dumps({**record, "offset": number})


def key_object(table, row):
    return {each[0]: row[each[0]] for each in shop.TABLES[table][0]}


def told(row):
    if row.get("raw") is not None:
        row["raw"] = base64.b64encode(bytes.fromhex(row["raw"])).decode()
    if row.get("ratio") is not None:
        row["ratio"] = float(row["ratio"])
    return row


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "shop.db"
    path.unlink(missing_ok=True)
    database = write.Sqlite(path)
    before = write.Writer(database, 1, 0)
    database.run(shop.schema("sqlite"))
    for table in ("acct", "wide", "moved"):
        database.run(before.insert(table)[1] for _ in range(20))
    database.run(["INSERT INTO ledger (id, ver, changes) VALUES ('before', 1, 1)"])

    topics = Topics()
    for number, table in enumerate(shop.TABLES):
        for row_number, row in enumerate(shop.sqlite_rows(path, table)):
            position = f"00000001-{1:016X}-0-{number + 1:06}{row_number:09}0"
            topics.send(table, "read", key_object(table, row), row, position)

    database.run(triggers())
    writer = write.Writer(database, 2, 1)
    for _ in range(400):
        writer.transaction()
    database.close()

    present = set()
    with sqlite3.connect(path) as log:
        for number, table, op, old, new in log.execute("SELECT id, tbl, op, old, new FROM log ORDER BY id"):
            old, new = (told(json.loads(each)) if each else None for each in (old, new))
            position = f"00000001-{number:016X}-1-{{:016}}"
            here = (table, shop.key_of(table, new or old))
            if op == "INSERT" and here in present:
                # INSERT OR REPLACE fires no trigger for the row that it replaces.
                op = "UPDATE"
            present.discard(here) if op == "DELETE" else present.add(here)
            if op == "UPDATE" and old and key_object(table, old) != key_object(table, new):
                old_key, new_key = key_object(table, old), key_object(table, new)
                topics.send(table, "delete", old_key, None, position.format(0), **{"feedline-new-key": compact(new_key)})
                topics.send(table, "insert", new_key, new, position.format(1), **{"feedline-old-key": compact(old_key)})
            else:
                topics.send(table, op.lower(), key_object(table, new or old), new, position.format(0))

    middle = len(topics.records) // 2
    (directory / "records.jsonl").write_text("\n".join(topics.lines((middle, middle + 100))))
    rows = {table: list(shop.sqlite_rows(path, table)) for table in shop.TABLES}
    (directory / "rows.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
