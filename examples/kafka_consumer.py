#!/usr/bin/env python3
"""Folds feedline's events from Kafka topics into tables, and prints them once it has been quiet for a while.

    python3 kafka_consumer.py 127.0.0.1:9092 shop.public.orders [more topics] [--quiet SECONDS]

Needs confluent-kafka (Debian: python3-confluent-kafka).
"""
import argparse
import json
import time
from confluent_kafka import Consumer

rows = {}  # (table, key): (position, the row, or None where it is deleted)
floor = {}  # table: position of its last truncate or reset


def fold(event):
    table, position = f"{event['schema']}.{event['table']}", event["source"]["position"]
    if event["op"] in ("truncate", "reset"):
        # Copies come on every partition: what is older than the newest of them is gone, whenever it arrives.
        floor[table] = max(position, floor.get(table, ""))
        for place in [place for place, (at, _) in rows.items() if place[0] == table and at < floor[table]]:
            del rows[place]
        return
    place = (table, json.dumps(event["key"]))
    at, before = rows.get(place, ("", None))
    if position <= max(at, floor.get(table, "")):
        return  # a repeat: positions of a key only grow
    row = event["after"]
    for column in event.get("unchanged", []):  # large values that the log left out
        row[column] = (before or {}).get(column)
    rows[place] = (position, row)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("servers")
    arguments.add_argument("topics", nargs="+")
    arguments.add_argument("--quiet", type=float, default=5)
    arguments = arguments.parse_args()
    group = f"fold-{time.time_ns()}"
    consumer = Consumer({"bootstrap.servers": arguments.servers, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe(arguments.topics)
    last = time.monotonic()
    while time.monotonic() < last + arguments.quiet:
        message = consumer.poll(0.2)
        if message is None or message.error():
            continue
        last = time.monotonic()
        if message.value():  # else a tombstone: its delete came before
            fold(json.loads(message.value()))
    for (table, _), (_, row) in sorted(rows.items()):
        if row is not None:
            print(table, json.dumps(row))


if __name__ == "__main__":
    main()
