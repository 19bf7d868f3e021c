#!/usr/bin/env python3
"""Folds feedline's events from a RabbitMQ queue into tables, and prints them as JSON lines once no event has arrived for a while.

    python3 rabbitmq_consumer.py amqp://guest:guest@127.0.0.1:5672/%2f billing [--quiet SECONDS]

Needs pika (Debian: python3-pika).
"""
import argparse
import json

import pika

rows = {}  # (table, key): (position, row; None if deleted)
floor = {}  # table: position of its last truncate or reset
moved = {}  # (table, old key, new key): the row that the delete of a changed key removed, until the insert arrives


def fold(event, keys):
    table, position = f"{event['schema']}.{event['table']}", event["source"]["position"]
    if event["op"] in ("truncate", "reset"):
        # Anything older is deleted, also when it is sent again.
        floor[table] = max(position, floor.get(table, ""))
        for place in [place for place, (at, _) in rows.items() if place[0] == table and at < floor[table]]:
            del rows[place]
        return
    key = json.dumps(event["key"])
    at, row = rows.get((table, key), ("", None))
    if position < max(at, floor.get(table, "")):
        return  # a repeated event: positions of a key only grow
    # A repeat of a key's last event is folded again: the delete of a changed key may have been missing the first time.
    if new_key := keys.get("feedline-new-key"):
        moved[table, key, new_key] = row or moved.get((table, key, new_key))
    if old_key := keys.get("feedline-old-key"):
        row = moved.pop((table, old_key, key), None) or row
    kept = {column: row[column] for column in event.get("unchanged", []) if column in (row or {})}
    rows[table, key] = (position, event["after"] and {**event["after"], **kept})


arguments = argparse.ArgumentParser()
arguments.add_argument("url")
arguments.add_argument("queue")
arguments.add_argument("--quiet", type=float, default=5)
arguments = arguments.parse_args()
connection = pika.BlockingConnection(pika.URLParameters(arguments.url))
channel = connection.channel()
channel.basic_qos(prefetch_count=1000)
for method, properties, body in channel.consume(arguments.queue, inactivity_timeout=arguments.quiet):
    if method is None:
        break
    keys = {name: json.dumps(json.loads(value)) for name, value in properties.headers.items() if name.endswith("-key")}
    event = json.loads(body)
    if properties.content_type.startswith("application/cloudevents"):
        event = event["data"]  # a CloudEvent in structured mode
    fold(event, keys)
    # If you store the tables, acknowledge only after that.
    channel.basic_ack(method.delivery_tag)
connection.close()
for (table, _), (_, row) in sorted((place, held) for place, held in rows.items() if held[1] is not None):
    print(table, json.dumps(row))
