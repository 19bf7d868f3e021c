#!/usr/bin/env python3
"""Writes to the shop's tables until standard input ends, as one of several writers that own disjoint keys.

    write.py --sqlite FILE | --psql COMMAND | --mysql COMMAND   --writer N --seed N --rate TRANSACTIONS_PER_SECOND
    write.py --sqlite FILE | --psql COMMAND | --mysql COMMAND   --create ROWS

Prints one JSON object at the end: what was committed.
"""

import argparse
import json
import os
import random
import select
import shlex
import sqlite3
import subprocess
import sys
import time

import shop


class Sqlite:
    dialect = "sqlite"
    begin = "BEGIN IMMEDIATE"

    def __init__(self, path):
        self.database = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = NORMAL")

    def run(self, statements):
        for statement in statements:
            self.database.execute(statement)

    def close(self):
        self.database.close()


class Client:
    """A session of a database's own client: statements go in through a pipe, and a mark comes back when a transaction is done."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1 << 16
        )

    def run(self, statements):
        for statement in statements:
            self.process.stdin.write(statement + ";\n")
        self.process.stdin.write(self.mark)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if answer != "done\n":
            raise SystemExit(f"the client said {answer!r}")

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            raise SystemExit("the client failed")


class Postgres(Client):
    dialect = "postgres"
    begin = "BEGIN"
    mark = "\\echo done\n"


class MySql(Client):
    dialect = "mysql"
    begin = "BEGIN"
    mark = "SELECT 'done';\n"

    def __init__(self, command):
        super().__init__(f"{command} --unbuffered")
        # Writers own disjoint keys: without locks of gaps they do not wait for each other.
        self.run([
            "SET time_zone = '+00:00'",
            "SET sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ])


def text(value):
    return "'" + value.replace("'", "''") + "'"


def counts(rows):
    """How many rows each table has before the changefeed."""
    return [(table, rows if table == "acct" else rows // 20) for table in shop.TABLES if table != "ledger"]


class Writer:
    def __init__(self, database, number, seed):
        self.database = database
        self.random = random.Random(f"{seed}/{number}")
        self.number = number
        self.next = number * 100_000_000
        self.rows = {table: [] for table in shop.TABLES}
        self.transactions = 0
        self.changes = 0

    def create(self, rows):
        """Rows that are there before the changefeed, a transaction a table; their keys are the first of this writer."""
        for table, count in counts(rows):
            self.database.run([self.database.begin, *(self.insert(table)[1] for _ in range(count)), "COMMIT"])

    def adopt(self, first, rows, share, shares):
        """Takes over a share of the rows that the first writer made: they change and go while they are being read."""
        for table, count in counts(rows):
            keys = [first.key(table) for _ in range(count)]
            self.rows[table] = keys[share::shares]

    # What a transaction is made of: each returns statements and the number of changes that they are.

    def key(self, table):
        self.next += 1
        return (self.number, f"k{self.next} \"é'") if table == "composite" else (self.next,)

    def where(self, table, key):
        names = [each[0] for each in shop.TABLES[table][0]]
        return " AND ".join(f"{name} = {self.literal(value)}" for name, value in zip(names, key))

    def literal(self, value):
        return text(value) if isinstance(value, str) else str(value)

    def noise(self, length):
        """Text that does not compress, so that PostgreSQL stores it out of line."""
        return "".join(self.random.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", k=length))

    def value(self, column):
        r = self.random
        name = column[0]
        dialect = self.database.dialect
        if name == "bal":
            return text(f"{r.randint(-10**9, 10**9) / 100:.2f}")
        if name == "ratio":
            return r.choice(["0.1", "-1.5e-7", "3.0", "1e300", repr(r.random())])
        if name == "flag":
            return r.choice(["true", "false", "NULL"]) if dialect == "postgres" else r.choice(["1", "0", "NULL"])
        if name == "doc":
            return text(self.noise(r.choice([0, 20, 3_000, 9_000, 65_536 if r.random() < 0.2 else 100])))
        if name == "raw":
            raw = r.randbytes(r.choice([0, 1, 5_000])).hex()
            return f"'\\x{raw}'" if dialect == "postgres" else f"x'{raw}'"
        if name == "at":
            day, micros = r.randint(1, 30), r.randint(0, 999_999)
            postgres, mysql = f"2026-11-{day:02}T12:34:56.{micros:06}Z", f"2026-11-{day:02} 12:34:56.{micros:06}"
            return text({"postgres": postgres, "mysql": mysql, "sqlite": "noon"}[dialect])
        if name == "tags":
            return text("[]" if dialect == "sqlite" else '{"a": [1, 2.50, null], "é": "\\n"}')
        return r.choice(["NULL", text("plain"), text('quote " back \\ slash / tab \t bell \x07 snow \u2603 \U0001f600')])

    def insert(self, table, key=None, note=None):
        key = key or self.key(table)
        keys, others = shop.TABLES[table]
        values = [text(note) if note and each[0] == "note" else self.value(each) for each in others]
        literals = [self.literal(value) for value in key] + ["1"] + values
        return key, f"INSERT INTO {table} ({', '.join(shop.columns(table))}) VALUES ({', '.join(literals)})"

    def update(self, table, key, note=None):
        """Some columns only: what is stored out of line and not named stays unsaid in PostgreSQL's log."""
        others = shop.TABLES[table][1]
        named = self.random.sample(others, self.random.randint(1, len(others))) if note is None else others[:0]
        sets = [f"{each[0]} = {self.value(each)}" for each in named] + ([f"note = {text(note)}"] if note else [])
        return f"UPDATE {table} SET ver = ver + 1, {', '.join(sets)} WHERE {self.where(table, key)}"

    def step(self):
        r = self.random
        table = r.choice(["acct", "acct", "composite", "moved", "wide", "churn", "gone"])
        rows = self.rows[table]
        if len(rows) < 20:
            key, statement = self.insert(table)
            rows.append(key)
            return [statement], 1
        at = r.randrange(len(rows))
        key = rows[at]
        kind = r.random()
        if table == "moved" and kind < 0.6:
            rows[at] = self.key(table)
            return [f"UPDATE moved SET id = {rows[at][0]}, ver = ver + 1 WHERE {self.where(table, key)}"], 2
        if table == "composite" and self.database.dialect != "postgres" and kind < 0.5:
            same = f"SELECT a, b, ver + 1, note, ratio, flag FROM composite WHERE {self.where(table, key)}"
            return [f"REPLACE INTO composite (a, b, ver, note, ratio, flag) {same}"], 1
        if table == "churn":
            again = self.insert(table, key)[1]
            return [f"DELETE FROM churn WHERE {self.where(table, key)}", again, self.update(table, key)], 3
        if table == "gone" or kind < 0.1:
            rows.pop(at)
            return [f"DELETE FROM {table} WHERE {self.where(table, key)}"], 1
        if kind < 0.3:
            key, statement = self.insert(table)
            rows.append(key)
            return [statement], 1
        return [self.update(table, key)], 1

    def ghosts(self):
        """Statements that will not last, over rows that do and rows that never were."""
        statements = [self.insert("acct", note=shop.GHOST)[1], self.insert("wide", note=shop.GHOST)[1]]
        if self.rows["composite"]:
            statements.append(self.update("composite", self.random.choice(self.rows["composite"]), shop.GHOST))
        return statements

    def transaction(self):
        r = self.random
        if r.random() < 0.05:
            self.database.run([self.database.begin, *self.ghosts(), "ROLLBACK"])
            return
        statements, changes = [self.database.begin], 0
        steps = r.choices([1, 3, 20, 400], weights=[70, 20, 9, 1])[0]
        for _ in range(steps):
            made, count = self.step()
            statements += made
            changes += count
        if r.random() < 0.05:
            statements += ["SAVEPOINT s", *self.ghosts(), "ROLLBACK TO SAVEPOINT s"]
        self.transactions += 1
        statements.append(
            f"INSERT INTO ledger (id, ver, changes) VALUES ('{self.number}-{self.transactions}', 1, {changes + 1})"
        )
        self.database.run([*statements, "COMMIT"])
        self.changes += changes + 1

    def until_told(self, rate):
        """Keeps to the rate on average; a transaction that waits for a lock is made up for. `s` on standard input asks for a tenth of
        the rate, `f` for all of it again; its end is the end."""
        share = 1.0
        due = time.monotonic()
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], max(0, due - time.monotonic()))
            if ready:
                told = os.read(sys.stdin.fileno(), 1)
                if not told:
                    return
                share = {b"s": 0.1, b"f": 1.0}[told]
                due = time.monotonic()
            self.transaction()
            due += 1 / (rate * share)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sqlite")
    arguments.add_argument("--psql")
    arguments.add_argument("--mysql")
    arguments.add_argument("--create", type=int)
    arguments.add_argument("--writer", type=int, default=1)
    arguments.add_argument("--adopt", type=int, nargs=3, metavar=("ROWS", "SHARE", "SHARES"))
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--rate", type=float, default=100)
    given = arguments.parse_args()
    database = Sqlite(given.sqlite) if given.sqlite else MySql(given.mysql) if given.mysql else Postgres(given.psql)
    writer = Writer(database, given.writer, given.seed)
    if given.create is None:
        if given.adopt:
            rows, share, shares = given.adopt
            writer.adopt(Writer(database, 1, given.seed), rows, share, shares)
        writer.until_told(given.rate)
    else:
        database.run(shop.schema(database.dialect))
        writer.create(given.create)
        if given.create:
            database.run(["INSERT INTO ledger (id, ver, changes) VALUES ('before', 1, 1)"])
    database.close()
    print(json.dumps({"transactions": writer.transactions, "changes": writer.changes}))


if __name__ == "__main__":
    main()
