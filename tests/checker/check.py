#!/usr/bin/env python3
"""Reads the topics as a stranger would, and the tables, and says whether one is the truth about the other.

    check.py --bootstrap HOST:PORT --topics PREFIX   | --amqp URL --queue NAME   | --records FILE
             --sqlite FILE | --psql COMMAND | --mysql COMMAND | --rows FILE
             [--save DIRECTORY] [--restarts N] [--repeated-bytes-max N] [--holes] [--scans] [--late-reads] [--except RULE]... [--plant BUG]

Nothing here is shared with the program under test but the words of its contract. Prints one JSON report; ends with 0
where every promise holds, 1 where one is broken, 2 where it could not look, 3 where no record is such that it could be spoilt so. `--plant` spoils what was read the way a
bug would, to show that it is seen; `--except` names a rule that this run does not promise. `--holes`: the broker was killed, and
kept in part what it had not confirmed. `--scans`: the log does not hold what happened while nobody read; of that, only the last
state of each row is told. `--late-reads`: the server's snapshots are not exact, so that a row that is read may be newer than its place
in the log.
"""

import argparse
import json
import pathlib
import shlex
import sys

import plants
import read
import rules
import shop


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bootstrap")
    arguments.add_argument("--topics")
    arguments.add_argument("--amqp")
    arguments.add_argument("--queue")
    arguments.add_argument("--records", type=pathlib.Path)
    arguments.add_argument("--sqlite")
    arguments.add_argument("--psql")
    arguments.add_argument("--mysql")
    arguments.add_argument("--rows", type=pathlib.Path)
    arguments.add_argument("--save", type=pathlib.Path)
    arguments.add_argument("--restarts", type=int, default=0)
    arguments.add_argument("--repeated-bytes-max", type=int, default=0)
    arguments.add_argument("--holes", action="store_true")
    arguments.add_argument("--scans", action="store_true")
    arguments.add_argument("--late-reads", action="store_true")
    arguments.add_argument("--except", dest="excepted", action="append", default=[])
    arguments.add_argument("--plant", choices=sorted(plants.PLANTS))
    given = arguments.parse_args()

    if given.records:
        lines = given.records.read_text().splitlines()
    elif given.amqp:
        lines = read.rabbitmq(given.amqp, given.queue)
    else:
        lines = read.kcat(given.bootstrap, given.topics)
    if given.rows:
        tables = json.loads(given.rows.read_text())
    elif given.sqlite:
        tables = {table: list(shop.sqlite_rows(given.sqlite, table)) for table in shop.TABLES}
    elif given.mysql:
        tables = {table: list(shop.mysql_rows(shlex.split(given.mysql), table)) for table in shop.TABLES}
    else:
        tables = {table: list(shop.postgres_rows(shlex.split(given.psql), table)) for table in shop.TABLES}
    if given.save:
        given.save.mkdir(parents=True, exist_ok=True)
        (given.save / "records.jsonl").write_text("\n".join(lines))
        (given.save / "rows.json").write_text(json.dumps(tables))

    records = read.records(lines)
    if given.plant:
        plants.PLANTS[given.plant](records)

    excepted = set(given.excepted) | ({"tombstones"} if given.amqp else set())
    promised = (given.holes, given.scans, given.late_reads, excepted)
    report = rules.check(records, tables, given.restarts, given.repeated_bytes_max, *promised)
    print(json.dumps(report, indent=2))
    return 1 if report["broken"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except plants.NothingToPlant:
        sys.exit(3)
    except (OSError, ValueError, KeyError) as error:
        print(f"check.py: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
