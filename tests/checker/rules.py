"""The promises, each as a function over everything that was read.

G1 no loss, G2 duplicates, G3 order, G4 state, G5 transactions. Each rule yields what breaks it.
"""

import bisect
from collections import defaultdict

import shop


def check(records, tables, restarts, repeated_bytes_max, holes=False, scans=False, late_reads=False, excepted=()):
    first = first_deliveries(records)
    events = sorted((each for each in first if each.body is not None), key=lambda each: each.position)
    repeated = repetitions(records)
    repeated_bytes = sum(each.size_bytes for each in repeated)
    rules = {
        "shape": shape(records),
        "same id, same bytes": same_bytes(records),
        # What a broker left out comes behind what it kept, and then all of that once more.
        "order": [] if holes else order(records),
        "newest last": newest_last(records),
        "rewinds": rewinds(records, restarts, holes),
        "repetitions": [f"{repeated_bytes} bytes of at most {repeated_bytes_max}"] if repeated_bytes > repeated_bytes_max else [],
        "tombstones": tombstones(records),
        "transactions": transactions(events),
        "ledger": ledger(events),
        "ghosts": ghosts(events),
        "state": state(events, tables, scans, late_reads),
    }
    unknown = set(excepted) - set(rules)
    if unknown:
        raise ValueError(f"no rule is called {sorted(unknown)}")
    broken = {}
    for name, violations in rules.items():
        violations = [] if name in excepted else list(violations)
        if violations:
            broken[name] = {"count": len(violations), "first": violations[:5]}
    operations = defaultdict(int)
    for event in events:
        operations[event.body["op"]] += 1
    return {
        "records": len(records),
        "events": len(events),
        "operations": dict(sorted(operations.items())),
        "repetitions": len(repeated),
        "repeated_bytes": repeated_bytes,
        "repeated_bytes_max": repeated_bytes_max,
        "rows": sum(len(rows) for rows in tables.values()),
        "transactions": len({each.body["source"]["transaction"] for each in events} - {None}),
        "restarts": restarts,
        "broken": broken,
    }


def identity(record):
    """Tells first deliveries from repeated ones: a delete and its tombstone share an id, and so do the copies of a
    truncate or reset in every partition."""
    return (record.id, record.body is None, record.place)


def first_deliveries(records):
    seen = {}
    for record in records:
        seen.setdefault(identity(record), record)
    return list(seen.values())


def repetitions(records):
    """Events that had come before; a tombstone goes with its delete."""
    seen, repeated = set(), []
    for record in records:
        if record.body is not None:
            if identity(record) in seen:
                repeated.append(record)
            seen.add(identity(record))
    return repeated


def shape(records):
    for record in records:
        for error in record.shape_errors():
            yield f"{where(record)}: {error}"


def where(record):
    return f"{record.topic}/{record.partition}@{record.offset} {record.id}"


def same_bytes(records):
    seen = {}
    for record in records:
        content = record.content()
        if seen.setdefault((record.id, record.body is None), content) != content:
            yield where(record)


def order(records):
    """First deliveries of a key come in the log's order."""
    highest, seen = {}, set()
    for record in records:
        if identity(record) in seen:
            continue
        seen.add(identity(record))
        key = (*record.place, record.key)
        if record.position < highest.get(key, ""):
            yield f"{where(record)} after {highest[key]}"
        highest[key] = max(record.position, highest.get(key, ""))


def newest_last(records):
    """The last message of a key is its newest."""
    highest, last = {}, {}
    for record in records:
        key = (*record.place, record.key)
        last[key] = record
        highest[key] = max(record.position, highest.get(key, ""))
    for key, record in last.items():
        if record.position < highest[key]:
            yield f"{where(record)} is the last of its key, {highest[key]} came before"


def rewinds(records, restarts, holes):
    """A partition goes back only after a fault, and then repeats all that was sent from there on.

    With holes: a broker that was killed kept in part what it had not confirmed. What is missing comes when the partition has gone back,
    and belongs where the log has it.
    """
    partitions = defaultdict(list)
    for record in records:
        if record.live:
            partitions[record.place].append(record)
    for place, ours in partitions.items():
        back = 0
        # What was sent, one behind the other, and where each is; the record before this one; the first that is known to be left out.
        sent, known, before, left_out = [], {}, None, None

        def find(at):
            return bisect.bisect_left(sent, at) if holes else known.get(at, len(sent))

        for record in ours:
            at = (record.position, record.body is None)
            index = find(at)
            if before is not None and index <= find(before):
                back += 1
                if holes and left_out is not None and left_out < at:
                    yield f"{where(record)}: went back, and not to {left_out[0]}, which is missing"
                before = left_out = None
            if before is not None and find(before) + 1 < index:
                if not holes:
                    yield f"{where(record)}: a repetition leaves out what was sent"
                left_out = left_out or sent[find(before) + 1]
            if index == len(sent) or sent[index] != at:
                sent.insert(index, at)
                known[at] = index
            before = at
        if holes and left_out is not None:
            yield f"{place}: {left_out[0]} was left out and not sent again"
        if back > restarts:
            yield f"{place}: went back {back} times, with {restarts} restarts"


def tombstones(records):
    """After each delete its tombstone, or the same delete once more and then its tombstone."""
    owed, paid = {}, {}
    for record in records:
        key = (*record.place, record.key)
        delete = owed.pop(key, None)
        if record.body is None:
            repeated = paid.get(key) == record.id
            paid[key] = record.id
            if delete is None and not repeated or delete is not None and delete.id != record.id:
                yield f"{where(record)}: a tombstone without its delete"
            elif delete is not None and (delete.headers, delete.timestamp) != (record.headers, record.timestamp):
                yield f"{where(record)}: headers or time differ from its delete's"
        elif delete is not None and not (record.live and record.position <= delete.position):
            yield f"{where(record)}: a delete went without its tombstone, {delete.id}"
        if record.body is not None and record.body["op"] == "delete":
            owed[key] = record
    for delete in owed.values():
        yield f"{where(delete)}: no tombstone"


def transactions(events):
    """Indexes from 0 without a hole, in the log's order, and `last` on exactly the last."""
    groups = defaultdict(dict)
    for event in events:
        source = event.body["source"]
        if source["transaction"] is not None:
            groups[source["transaction"], event.position.split("-")[1]][event.id] = source
    for name, group in groups.items():
        sources = list(group.values())
        if [each["index"] for each in sources] != list(range(len(sources))):
            yield f"{name}: indexes {[each['index'] for each in sources][:20]}"
        if [each["last"] for each in sources] != [False] * (len(sources) - 1) + [True]:
            yield f"{name}: last is not on the last of {len(sources)} alone"


def ledger(events):
    """Each transaction's row in the ledger says how many changes it made: that many arrived, none beside them.

    What was committed before the last table's first row was read is told by rows, so counting starts after it.
    """
    first_read = {}
    for event in events:
        if event.body["op"] == "read":
            first_read.setdefault(event.body["table"], event.position)
    start = max(first_read.values(), default="")

    def cut(event):
        return "-".join(event.position.split("-")[:2])

    groups, current = {}, []
    live = [event for event in events if event.live and event.position > start]
    for event in live:
        transaction = event.body["source"]["transaction"]
        if transaction is not None:
            groups.setdefault((transaction, cut(event)), []).append(event)
            continue
        # A log without transactions has one writer at a time: the ledger's row ends each.
        current.append(event)
        if event.body["table"] == "ledger":
            groups[event.id] = current
            current = []
    if current:
        yield f"{where(current[0])}: {len(current)} changes of a transaction that has no row in the ledger"
    for name, group in groups.items():
        entries = [each.body["after"] for each in group if each.body["table"] == "ledger"]
        if len(entries) != 1 or entries[0]["changes"] != len(group):
            yield f"{name}: {len(group)} changes, the ledger says {[each['changes'] for each in entries]}"


def ghosts(events):
    for event in events:
        if shop.GHOST in event.text:
            yield where(event)


def state(events, tables, scans, late_reads):
    """Folds the events in the log's order, looking at each step whether it follows from the one before, and compares
    what comes out with the tables, every row and column. With scans, versions of a row may be left out, and taken back. With late reads,
    the log may still tell how a row became what was read of it."""
    fold = {table: {} for table in tables}
    # Rows on their way from one key to another, and keys that are known to hold no row.
    leaving, absent = {}, {table: set() for table in tables}
    # What was read of a row, until the log has come as far.
    ahead = {}
    for event in events:
        table, op = event.body["table"], event.body["op"]
        rows = fold[table]
        if op in ("truncate", "reset"):
            rows.clear()
            absent[table].clear()
            continue
        key = shop.key_of(table, event.body["key"])
        known = rows.get(key)
        if op == "delete":
            if known is None and (event.live and key in absent[table]) and (table, key) not in ahead:
                yield f"{where(event)}: deletes a row that is not there"
            if "feedline-new-key" in event.headers:
                leaving[table, event.key] = known
            rows.pop(key, None)
            absent[table].add(key)
            continue
        row = dict(event.body["after"])
        came_from = event.headers.get("feedline-old-key")
        base = leaving.pop((table, came_from), None) if came_from else known
        for column in event.body.get("unchanged", []):
            # A row that the prefeed has not reached yet is not known; it will be read, or be found wrong at the end.
            if base is not None and column in base:
                row[column] = base[column]
        if op == "read" and late_reads:
            ahead[table, key] = row
        elif (table, key) in ahead and row["ver"] <= ahead[table, key]["ver"]:
            if row == ahead[table, key]:
                del ahead[table, key]
        elif op == "read":
            if known is not None and complete(table, known) and known != row:
                yield f"{where(event)}: reads {brief(row)} where the log says {brief(known)}"
            if known is None and key in absent[table]:
                yield f"{where(event)}: reads a row that the log has deleted"
        elif base is not None and (op == "update" or came_from):
            if not scans and row["ver"] != base["ver"] + 1:
                yield f"{where(event)}: version {row['ver']} follows {base['ver']}"
        elif op == "update" and key in absent[table]:
            yield f"{where(event)}: updates a row that is not there"
        elif op == "insert" and not came_from and (not scans and row["ver"] != 1 or known is not None):
            yield f"{where(event)}: inserts version {row['ver']} over {brief(known)}"
        rows[key] = row
        absent[table].discard(key)

    for table, rows in tables.items():
        truth = {shop.key_of(table, row): row for row in rows}
        for key in truth.keys() - fold[table].keys():
            yield f"{table} {key}: missing"
        for key in fold[table].keys() - truth.keys():
            yield f"{table} {key}: should not be there"
        for key in truth.keys() & fold[table].keys():
            if truth[key] != fold[table][key]:
                yield f"{table} {key}: is {brief(truth[key])}, told as {brief(fold[table][key])}"


def complete(table, row):
    return all(column in row for column in shop.columns(table))


def brief(row):
    return str(row)[:200]
