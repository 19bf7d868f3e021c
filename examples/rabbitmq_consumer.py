#!/usr/bin/env python3
"""Folds feedline's events from a RabbitMQ queue into tables, and prints them as JSON lines once it has been quiet for a while.

    python3 rabbitmq_consumer.py amqp://guest:guest@127.0.0.1:5672/%2f billing [--quiet SECONDS]

Needs pika (Debian: python3-pika).
"""
import argparse
import json

import pika

rows = {}  # (table, key): (position, the row, or None where it is deleted)
floor = {}  # table: position of its last truncate or reset


def fold(event):
    table, position = f"{event['schema']}.{event['table']}", event["source"]["position"]
    if event["op"] in ("truncate", "reset"):
        # What is older is gone, also where it is sent again.
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
    arguments.add_argument("url")
    arguments.add_argument("queue")
    arguments.add_argument("--quiet", type=float, default=5)
    arguments = arguments.parse_args()
    connection = pika.BlockingConnection(pika.URLParameters(arguments.url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1000)
    for method, _, body in channel.consume(arguments.queue, inactivity_timeout=arguments.quiet):
        if method is None:
            break
        fold(json.loads(body))
        # A consumer that keeps its tables acknowledges when they are stored.
        channel.basic_ack(method.delivery_tag)
    connection.close()
    for (table, _), (_, row) in sorted(rows.items()):
        if row is not None:
            print(table, json.dumps(row))


if __name__ == "__main__":
    main()
