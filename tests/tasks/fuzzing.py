"""Records broken in every way met in the wild, and what every reader must make of them.

A reader either converts a record or reports it with its file and line; it neither crashes nor
hangs, and what it yields can be written. `fuzz_lines` is for JSONL, `fuzz_list` for a JSON list
(or an object around one), `fuzz_files` for faults after which a file cannot be read on.
"""

import json
import random
import re

import pytest
from thorough import sample

from tulu_jax.data.faults import Faults
from tulu_jax.errors import DataError

RAW = "@raw@"
LINES, LISTED, FILES = sample(10_000), sample(8_000), sample(2_000)
HUGE = "x" * 10_000_000
ODD_VALUES = ["null", "true", "0", "-1", "2.5", '""', '" "', "[]", "{}", "[[]]", "[null]"]
ODD_VALUES += ['{"a": 1}', "[{}]", '["a"]']
ODD_TEXTS = ["\x00", "a\x00b", "\u2028", "\ufeff", "\r\n", "𝄞", "é" * 50, "[|AI|]", "{input}"]
HALF_CHARACTERS = ["\ud800", "\udfff", "a\udc00b"]


class Collecting(Faults):
    """Keeps every message."""

    def __init__(self):
        super().__init__()
        self.every = []

    def skip(self, error):
        super().skip(error)
        self.every.append(str(error))


def mutate(rng, record):
    """JSON text of the record with one or two things wrong with it; still JSON."""
    record = json.loads(json.dumps(record))
    raw = None
    for _ in range(rng.randint(1, 2)):
        container, key = rng.choice(list(_slots(record)))
        kind = rng.randrange(8)
        if kind == 0 and isinstance(container, dict):
            del container[key]
            if not record:
                break
        elif kind == 1:
            container[key] = json.loads(rng.choice(ODD_VALUES))
        elif kind == 2:
            container[key], raw = RAW, _deep(rng)
        elif kind == 3:
            container[key], raw = RAW, rng.choice(["NaN", "-Infinity", "1e999", "9" * 5000])
        elif kind == 4:
            container[key] = _insert(rng, container[key], rng.choice(HALF_CHARACTERS))
        elif kind == 5 and isinstance(container, dict):
            container[rng.choice(["", "\x00", "\ud800", "a", "x" * 1000])] = json.loads(
                rng.choice(ODD_VALUES)
            )
        else:
            container[key] = _insert(rng, container[key], rng.choice(ODD_TEXTS))
    text = json.dumps(record, ensure_ascii=rng.random() < 0.5 or _has_half(record))
    return text if raw is None else text.replace(f'"{RAW}"', raw)


def break_bytes(rng, text):
    """The text as UTF-8, cut off, or with bytes changed; on one line."""
    data = bytearray(text.encode(errors="surrogatepass"))
    kind = rng.randrange(4)
    if kind == 0:
        del data[rng.randrange(len(data)) :]
    elif kind == 1:
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        at = rng.randrange(len(data))
        data[at:at] = rng.choice([b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"}", b"[", b"\\"])
    else:
        start = rng.randrange(len(data))
        del data[start : start + rng.randint(1, 20)]
    return bytes(data).replace(b"\n", b" ").replace(b"\r", b" ")


def fuzz_lines(path, records, read, *, count=LINES, one_each=True, seed=0):
    """Reads a JSONL file of `count` mutated records with `read(faults)`.

    `one_each`: a good record gives exactly one conversation. Returns the collected faults.
    """
    rng = random.Random(seed)
    lines = [json.dumps(record).encode() for record in records]
    while len(lines) < count:
        text = mutate(rng, rng.choice(records))
        data = break_bytes(rng, text) if rng.random() < 0.3 else text.encode()
        lines.append(data if data.strip() else b"0")
    for record in records[:3]:
        container, key = rng.choice([s for s in _slots(record) if isinstance(s[0][s[1]], str)])
        lines.append(_with(record, container, key, HUGE).encode())
    path.write_bytes(b"\n".join(lines) + b"\n")
    return _check(path, read, len(lines), one_each=one_each)


def fuzz_list(
    path, records, read, *, count=LISTED, one_each=True, seed=0, before="[", after="]", good=0
):
    """Reads a file of one JSON list of `count` mutated records; what is around it is given.

    `good`: how many sound records come before the list, in other files.
    """
    rng = random.Random(seed)
    texts = [json.dumps(record) for record in records]
    texts += [mutate(rng, rng.choice(records)) for _ in range(count - len(texts))]
    texts += rng.sample(["0", "null", '"a"', "[]", "[" * 3000 + "]" * 3000, "{}", "-1.5e3"], 7)
    for record in records[:3]:
        container, key = rng.choice([s for s in _slots(record) if isinstance(s[0][s[1]], str)])
        texts.append(_with(record, container, key, HUGE))
    joined = before + "\n" + ",\n".join(texts) + "\n" + after
    path.write_text(joined, encoding="utf-8", newline="")
    return _check(path, read, len(texts) + good, one_each=one_each)


def fuzz_files(path, content, read, *, count=FILES, seed=0):
    """Reads `count` files of broken bytes: each gives conversations or a DataError with its place.

    Returns how many were refused.
    """
    rng = random.Random(seed)
    refused = 0
    for _ in range(count):
        path.write_bytes(break_bytes(rng, content))
        faults = Collecting()
        try:
            _check_writable(list(read(faults)))
        except DataError as error:
            refused += 1
            faults.every.append(str(error))
        assert all(path.name in message for message in faults.every), faults.every
    return refused


def _check(path, read, count, *, one_each):
    faults = Collecting()
    conversations = list(read(faults))
    _check_writable(conversations)
    assert faults.records == count
    assert faults.skipped == len(faults.every) > count // 20
    if one_each:
        assert len(conversations) + sum(faults.left_out.values()) == count - faults.skipped
    assert conversations
    place = re.compile(re.escape(str(path)) + r", line \d+")
    for message in faults.every:
        assert place.search(message) and len(message) < 1000, message[:2000]
        message.encode()
    with pytest.raises(DataError) as first:
        list(read(None))
    assert str(first.value) == faults.every[0]
    with pytest.raises(DataError, match="too many bad records"):
        faults.check(path.name)
    return faults


def _check_writable(conversations):
    for conversation in conversations:
        assert set(conversation) == {"dataset", "id", "messages"}
        for message in conversation["messages"]:
            assert isinstance(message["content"], str) and isinstance(message["role"], str)
        json.dumps(conversation, ensure_ascii=False).encode()


def _slots(value):
    """Every place in the record that holds something."""
    items = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    for key, inner in list(items):
        yield value, key
        yield from _slots(inner)


def _insert(rng, value, text):
    if not isinstance(value, str):
        return text
    at = rng.randint(0, len(value))
    return value[:at] + text + value[at:]


def _deep(rng):
    depth = rng.choice([50, 400, 990, 1200, 3000]) if rng.random() < 0.998 else 100_000
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}"), ('[{"]":[', "]}]")])
    return opening * depth + "1" + closing * depth


def _has_half(value):
    return any(0xD800 <= ord(c) <= 0xDFFF for c in json.dumps(value, ensure_ascii=False))


def _with(record, container, key, text):
    """JSON of the record with `text` in one place, the record itself unchanged."""
    kept, container[key] = container[key], text
    try:
        return json.dumps(record)
    finally:
        container[key] = kept
