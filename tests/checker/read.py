"""Records as kcat prints them, and the events in them."""

import json
import re
import subprocess
import sys

# The order of the fields is part of the contract, so the key's text can be cut out as it stands.
KEY_TEXT = re.compile(r'^\{"v":1,"op":"\w+","schema":"(?:[^"\\]|\\.)*","table":"(?:[^"\\]|\\.)*","key":(.*?),"before":', re.S)


def kcat(bootstrap, prefix):
    """Every record of the topics whose names begin so, one JSON object a line."""
    command = ["kcat", "-b", bootstrap, "-X", "isolation.level=read_committed"]
    metadata = json.loads(subprocess.run([*command, "-L", "-J"], stdout=subprocess.PIPE, check=True).stdout)
    lines = []
    for topic in sorted(each["topic"] for each in metadata["topics"]):
        if topic.startswith(prefix):
            reader = [*command, "-C", "-q", "-J", "-o", "beginning", "-e", "-t", topic]
            output = subprocess.run(reader, stdout=subprocess.PIPE, check=True).stdout
            lines += output.decode().split("\n")[:-1]
    return lines


def rabbitmq(url, queue):
    """Takes every message out of a queue in its order, as kcat would print it: a table's messages are a topic of one
    partition, its dead letters another one."""
    import pika

    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    waiting = channel.queue_declare(queue, passive=True).method.message_count
    lines = []
    while len(lines) < waiting:
        # `consume` begins once, and goes on where it was.
        _, properties, body = next(channel.consume(queue, auto_ack=True))
        headers = {"feedline-id": properties.message_id, "feedline-op": properties.type, **properties.headers}
        is_letter = headers.pop("feedline-error", None) is not None
        headers.pop("feedline-destination", None)
        # A dead letter has its key in its body alone.
        key = KEY_TEXT.match(body.decode())[1] if is_letter else headers.pop("feedline-key")
        record = {"topic": f"{queue}.{headers['feedline-table']}", "partition": int(is_letter), "offset": len(lines)}
        record |= {"ts": properties.timestamp, "key": key, "payload": body.decode()}
        lines.append(json.dumps(record | {"headers": [each for pair in headers.items() for each in pair]}))
    return lines


def shared_names(pairs):
    """An object whose names are kept once for all records: there may be millions. MongoDB's key is called `_id`."""
    return {sys.intern("id" if name == "_id" else name): value for name, value in pairs}


def records(lines):
    """The records of the lines, which are let go on the way."""
    lines.reverse()
    return [Record(lines.pop()) for _ in range(len(lines))]


class Record:
    """One record; `body` is None in a tombstone."""

    __slots__ = ("topic", "partition", "offset", "timestamp", "key", "text", "headers", "body", "id", "name", "position")

    def __init__(self, line):
        record = json.loads(line)
        self.topic = sys.intern(record["topic"])
        self.partition = record["partition"]
        self.offset = record["offset"]
        self.timestamp = record["ts"]
        self.key = record.get("key")
        self.text = record.get("payload")
        pairs = record.get("headers") or []
        self.headers = shared_names(zip(pairs[::2], pairs[1::2]))
        self.parse()

    def parse(self):
        """Takes the parts out of the text and the headers."""
        self.body = None if self.text is None else json.loads(self.text, object_pairs_hook=shared_names)
        self.id = self.headers.get("feedline-id", "")
        self.name, _, self.position = self.id.partition("/")

    @property
    def place(self):
        return (self.topic, self.partition)

    @property
    def size_bytes(self):
        """What it takes of the room in flight, at least."""
        return sum(len((part or "").encode()) for part in (self.id, self.key, self.text))

    @property
    def live(self):
        """Whether it tells a change of the log, not a row read."""
        return self.position.split("-")[2:3] == ["1"]

    def content(self):
        """All that must be the same when it is sent again."""
        headers = tuple(sorted(self.headers.items()))
        return (self.key, self.text, headers, self.timestamp)

    def shape_errors(self):
        """What the contract says of one record alone."""
        if len(self.position.split("-")) != 4:
            yield f"id {self.id!r} holds no position"
        if self.body is None:
            return
        body, source = self.body, self.body["source"]
        if body["v"] != 1 or body["op"] != self.headers.get("feedline-op"):
            yield "version or operation differ between header and body"
        if f"{body['schema']}.{body['table']}" != self.headers.get("feedline-table"):
            yield "table differs between header and body"
        if source["position"] != self.position or source["name"] != self.name:
            yield "position or name differ between id and body"
        found = KEY_TEXT.match(self.text)
        if not found or found[1] != self.key:
            yield "the record's key is not the body's key, byte by byte"
        if (body["after"] is None) != (body["op"] in ("delete", "truncate", "reset")):
            yield "an operation without its row, or a row without need"
        transaction = [source["transaction"], source["index"], source["last"]]
        if not self.live and transaction != [None, None, None]:
            yield "a row read names a transaction"
        if transaction.count(None) not in (0, 3):
            yield "a transaction is named in part"
