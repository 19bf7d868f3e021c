"""Bugs of the kind that change data capture has had, planted into what was read. Each changes the list in place.

The records chosen lie in the middle of what came after the last row was read, where nothing but the rules can tell.
"""

import copy
import json
from collections import Counter


def settled(records):
    """Live records that no row read later repeats."""
    start = max((each.position for each in records if not each.live), default="")
    return [each for each in records if each.live and each.position > start]


class NothingToPlant(Exception):
    """No record is such that this bug could have befallen it."""


def middle(records, wanted):
    found = [each for each in settled(records) if wanted(each)]
    if not found:
        raise NothingToPlant
    return found[len(found) // 2]


def remove(records, unwanted):
    records[:] = [each for each in records if not unwanted(each)]


def copies(records, record):
    """It, and each time that it was sent again."""
    return [each for each in records if each.id == record.id and each.body is not None]


def is_op(record, op):
    return record.live and record.body is not None and record.body["op"] == op


def dropped(records):
    """One update is skipped, and the next one of its row covers it."""
    later = set()
    covered = []
    for record in reversed(settled(records)):
        if is_op(record, "update") and not record.body.get("unchanged"):
            if (record.topic, record.key) in later:
                covered.append(record)
            later.add((record.topic, record.key))
    victim = middle(covered, lambda each: True)
    remove(records, lambda each: each.id == victim.id)


def swapped(records):
    """Two changes of one key change places."""
    before, pairs = {}, []
    lately = {each.id for each in settled(records)}
    times = Counter(each.id for each in records if each.body is not None)
    for at, record in enumerate(records):
        # Among records that were sent again an exchange may look like one more repeat, which is allowed.
        if record.id in lately and is_op(record, "update") and times[record.id] == 1:
            key = (*record.place, record.key)
            if key in before:
                pairs.append((before[key], at))
            before[key] = at
    if not pairs:
        raise NothingToPlant
    one, other = pairs[len(pairs) // 2]
    records[one], records[other] = records[other], records[one]
    records[one].offset, records[other].offset = records[other].offset, records[one].offset


def early_ack(records):
    """The position was kept before the broker had what lies before it: a stretch of whole transactions is gone."""
    ledgers = sorted({each.position for each in settled(records) if ".ledger" in each.topic})
    if len(ledgers) < 5:
        raise NothingToPlant
    start, end = ledgers[len(ledgers) // 2], ledgers[len(ledgers) // 2 + 2]
    remove(records, lambda each: each.live and start < each.position <= end)


def ghost(records):
    """A row that was deleted for good comes back."""
    deletes = {each.key for each in records if is_op(each, "delete") and ".gone" in each.topic}
    revived = copy.deepcopy(middle(records, lambda each: is_op(each, "insert") and each.key in deletes))
    records.append(revived)


def phantom(records):
    """An insert that no transaction has committed."""
    event = copy.deepcopy(middle(records, lambda each: is_op(each, "insert") and ".churn" in each.topic))
    event.body["key"]["id"] = event.body["after"]["id"] = 77
    event.key = '{"id":77}'
    event.headers["feedline-id"] = event.id[:-1] + "7"
    event.body["source"]["position"] = event.position[:-1] + "7"
    event.text = json.dumps(event.body, separators=(",", ":"), ensure_ascii=False)
    event.parse()
    records.append(event)


def lost_key_change_delete(records):
    """A row's key changes and the old key's delete is lost, with its tombstone."""
    victim = middle(records, lambda each: is_op(each, "delete") and "feedline-new-key" in each.headers)
    remove(records, lambda each: each.id == victim.id)


def lost_tombstone(records):
    victim = middle(records, lambda each: each.body is None)
    # All its copies: a process that is killed between a delete and its tombstone sends both again.
    remove(records, lambda each: each.body is None and each.id == victim.id)


def rewritten(records):
    """An event that is sent again says something else."""
    again = copy.deepcopy(middle(records, lambda each: is_op(each, "update")))
    again.text = again.text.replace('"committed_at":"2', '"committed_at":"3', 1)
    records.append(again)


def torn(records):
    """A transaction that never says that it ends, or, without transactions, a change that is not in its ledger."""
    last = [each for each in settled(records) if each.body and each.body["source"]["last"]]
    if last:
        for each in copies(records, last[len(last) // 2]):
            each.body["source"]["last"] = False
    else:
        for each in copies(records, middle(records, lambda each: each.live and ".ledger" in each.topic)):
            each.body["after"]["changes"] += 1


def wrong_value(records):
    """A value differs in one column of one row, in the last change of it."""
    last = {(each.topic, each.key): each for each in records if each.body is not None}
    victim = middle(last.values(), lambda each: "note" in (each.body["after"] or {}))
    for each in copies(records, victim):
        each.body["after"]["note"] = "altered"


def kept_in_part(records):
    """A broker was killed and kept an update, but not what was sent before it; then all of that was sent again."""
    victim = middle(records, lambda each: is_op(each, "update"))
    ours = [each for each in records if each.place == victim.place and each.live]
    before = ours.index(victim)
    if before < 3:
        raise NothingToPlant
    lost = ours[before - 3]
    records.insert(records.index(lost), copy.deepcopy(victim))


PLANTS = {
    "dropped": dropped,
    "swapped": swapped,
    "early-ack": early_ack,
    "ghost": ghost,
    "phantom": phantom,
    "lost-key-change-delete": lost_key_change_delete,
    "lost-tombstone": lost_tombstone,
    "rewritten": rewritten,
    "torn": torn,
    "wrong-value": wrong_value,
    "kept-in-part": kept_in_part,
}
