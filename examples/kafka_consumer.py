#!/usr/bin/env python3
"""Folds feedline's events from Kafka topics into tables, and prints them once no event has arrived for a while.

    python3 kafka_consumer.py 127.0.0.1:9092 shop.public.orders [more topics] [--quiet SECONDS]
"""
import argparse, json, time
from collections import defaultdict, deque
from confluent_kafka import Consumer  # Debian: python3-confluent-kafka

rows = {}  # (table, key): (position, row; None if deleted)
floor = {}  # table: position of its last truncate or reset
moved = defaultdict(list)  # (table, old key, new key): (position, row) of each delete whose insert has not arrived yet

def fold(event, old_key, new_key):  # returns whether the event was folded; if not, it must wait
    table, position = f"{event['schema']}.{event['table']}", event["source"]["position"]
    if event["op"] in ("truncate", "reset"):
        # Each partition has a copy. Anything older than the newest copy is deleted, whenever it arrives.
        floor[table] = max(position, floor.get(table, ""))
        for place in [place for place, (at, _) in rows.items() if place[0] == table and at < floor[table]]:
            del rows[place]
        return True
    key, gone = json.dumps(event["key"]), floor.get(table, "")
    at, row = rows.get((table, key), ("", None))
    if position <= max(at, gone):
        return True  # a repeated event: positions of a key only grow
    if new_key:
        moved[table, key, new_key].append((position, row))
    if old_key:  # a changed key: the old row comes from the delete of the old key, maybe on another partition
        halves = [half for half in moved[table, old_key, key] if gone < half[0] < position]
        if not halves:
            return False
        moved[table, old_key, key], row = [half for half in moved[table, old_key, key] if position < half[0]], halves[-1][1]
    kept = {column: row[column] for column in event.get("unchanged", []) if column in (row or {})}
    rows[table, key] = (position, event["after"] and {**event["after"], **kept})
    return True

arguments = argparse.ArgumentParser()
arguments.add_argument("servers")
arguments.add_argument("topics", nargs="+")
arguments.add_argument("--quiet", type=float, default=5)
arguments = arguments.parse_args()
settings = {"bootstrap.servers": arguments.servers, "group.id": f"fold-{time.time_ns()}", "auto.offset.reset": "earliest"}
consumer, queues, last = Consumer(settings), defaultdict(deque), time.monotonic()
consumer.subscribe(arguments.topics)
while time.monotonic() < last + arguments.quiet:
    message = consumer.poll(0.2)
    if message is None or message.error():
        continue
    last = time.monotonic()
    if message.value():  # otherwise a tombstone: its delete came before
        headers, event = dict(message.headers() or []), json.loads(message.value())
        old, new = (name in headers and json.dumps(json.loads(headers[name])) for name in ("feedline-old-key", "feedline-new-key"))
        queues[message.topic(), message.partition()].append((event.get("data", event), old, new))  # data: of a CloudEvent
        while any(queue and fold(*queue[0]) and queue.popleft() for queue in queues.values()):
            pass
for (table, _), (_, row) in sorted((place, held) for place, held in rows.items() if held[1] is not None):
    print(table, json.dumps(row))
if late := sum(map(len, queues.values())):
    raise SystemExit(f"{late} events wait for the delete of an old key, which is not in the topic")
