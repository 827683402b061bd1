"""Random records: nothing is trained that they say is not, no turn is lost without being counted.

Each text of a turn holds a word that is nowhere else, so that what becomes of it can be followed.
"""

import csv
import gzip
import io
import json
import random
import re

import pytest
import zstandard
from thorough import sample

from tasks import demo, jsonl
from tulu_jax.chat import encode_many, load_tokenizer
from tulu_jax.chat.template import render, segments_text
from tulu_jax.data.faults import Faults

ROWS = sample(20_000)
WORD = re.compile(r"w\d+x\d+e")
FLAGS = ("weight", "train", "training", "trainable", "loss", "loss_mask")
LIKE_FLAGS = ("masked", "train_on", "no_loss", "weights", "ignore_loss")
HARMLESS = ("name", "id", "source", "foo", "reasoning_content", "tools", "score", "thinking", "")
HOSTILE = ("images", "audio", "history", "tool_calls", "function_call", "content", "value", "role")
VALUES = (None, True, False, 0, 1, 0.0, 1.0, 2, -1, 0.5, "", "0", "no", "x", [], [3], {}, {"a": 1})
ROLES = {
    "messages": (("system", "user", "assistant"), ("tool", "robot", "human", None, 3, ["user"])),
    "sharegpt": (("system", "human", "gpt", "chatgpt", "bing"), ("tool", "observation", "who", 3)),
}
ANSWERS = ("assistant", "gpt", "chatgpt", "bing")


class Row:
    """A record under way, the words of its turns, and those that must not be trained."""

    def __init__(self, rng, number, shape):
        self.rng, self.number = rng, number
        self.words, self.answers, self.untrained = [], [], set()
        self.record = (
            getattr(self, f"_{shape}")() if hasattr(self, f"_{shape}") else self._turns(shape)
        )
        if rng.random() < 0.2:
            self.flag(self.record, self.answers)
        for _ in range(rng.choice((0, 0, 1, 2))):
            self.odd_field(self.record, (*HARMLESS, "images", "history"))
        self.record.pop("id", None)
        self.settle()

    def settle(self):
        """Forgets words of which another value took the place."""
        self.words = WORD.findall(json.dumps(self.record))
        self.answers = [word for word in self.answers if word in self.words]

    def text(self):
        word = f"w{self.number}x{len(self.words)}e"
        self.words.append(word)
        return (
            self.rng.choice(("", " ", "a\n", "</s> ", "[/INST]"))
            + word
            + self.rng.choice(("", "\n", " <s>"))
        )

    def flag(self, fields, words):
        name, value = self.rng.choice(FLAGS), self.rng.choice(VALUES)
        fields[name] = value
        if value is False or (value == 0 and value is not None and not isinstance(value, str)):
            self.untrained |= set(words)

    def odd_field(self, fields, names):
        name = self.rng.choice(names)
        if name not in fields:
            fields[name] = self.rng.choice(VALUES)

    def _pairs(self):
        fields = {"prompt": self.text()}
        self.untrained = set(self.words)
        fields["completion"] = self.text()
        self.answers = self.words[-1:]
        return self.spoil(fields)

    def _alpaca(self):
        fields = {"instruction": self.text()}
        if self.rng.random() < 0.5:
            fields["input"] = self.text()
        self.untrained = set(self.words)
        fields["output"] = self.text()
        self.answers = self.words[-1:]
        return self.spoil(fields)

    def spoil(self, fields):
        """Sometimes another type where there was text: its word is then nowhere."""
        if self.rng.random() < 0.05:
            fields[self.rng.choice(list(fields))] = self.rng.choice(VALUES)
        return fields

    def _turns(self, shape):
        who, said = ("role", "content") if shape == "messages" else ("from", "value")
        usual, odd = ROLES[shape]
        turns = []
        for _ in range(self.rng.randint(1, 4)):
            role = self.rng.choice(odd if self.rng.random() < 0.03 else usual)
            content = self.text()
            if self.rng.random() < 0.1:
                content = [{"type": "text", "text": content}, {"type": "text", "text": ""}]
            turn = {who: role, said: content}
            answer = isinstance(role, str) and role in ANSWERS
            if answer:
                self.answers.append(self.words[-1])
            else:
                self.untrained.add(self.words[-1])
            if self.rng.random() < 0.2:
                self.flag(turn, self.words[-1:])
            if self.rng.random() < 0.1:
                names = self.rng.choice((HARMLESS, HARMLESS, HOSTILE, LIKE_FLAGS))
                self.odd_field(turn, names)
            turns.append(turn if self.rng.random() < 0.995 else self.rng.choice(VALUES))
        return {"messages" if shape == "messages" else "conversations": turns}

    def json(self):
        """The record as JSON, and whether a key is in it twice."""
        text = json.dumps(self.record)
        if self.rng.random() < 0.02:
            name = self.rng.choice([re.escape(json.dumps(key)) for key in self.record])
            repeated = re.sub(f"^{{({name}:)", r'{\1 "again", \1', text)
            return repeated, repeated != text
        return text, False


def make(shape, seed):
    """Rows, and the JSON of each."""
    rng = random.Random(seed)
    rows = [Row(rng, number, shape) for number in range(ROWS)]
    return rows, [row.json() for row in rows]


def check(path, rows, twice, **options):
    """Reads the file and holds what comes of it against the rows."""
    faults = Faults()
    made = list(jsonl.read(path, name="x", faults=faults, **options))
    assert faults.records == len(rows)
    assert len(made) + faults.skipped + sum(faults.left_out.values()) == len(rows)
    assert len(made) > len(rows) // 3 and faults.skipped > 20
    seen = set()
    encoded = encode_many([one["messages"] for one in made], TOKENIZER, threads=1)
    for one, tokens in zip(made, encoded, strict=True):
        segments = render(one["messages"])
        whole = segments_text(segments, "")
        words = set(WORD.findall(whole))
        (number,) = {int(word[1:].split("x")[0]) for word in words}
        row = rows[number]
        assert number not in seen and not twice[number]
        seen.add(number)
        assert words == set(row.words), "a turn is lost"
        trained = segments_text([segment for segment in segments if segment.trained], "")
        assert not set(WORD.findall(trained)) & row.untrained, row.record
        decoded = TOKENIZER.decode(tokens.tokens[tokens.loss_mask])
        assert not set(WORD.findall(decoded)) & row.untrained, row.record
        if not row.untrained & set(row.answers):
            assert set(WORD.findall(decoded)) == set(row.answers)
    assert all(str(path) in message for message in faults.messages)
    return faults


TOKENIZER = load_tokenizer(demo.TOKENIZER_DIR)

LAYOUTS = {
    "messages": ("a.jsonl", lambda lines: "\n".join(lines).encode()),
    "sharegpt": ("a.json", lambda lines: f"[{','.join(lines)}]".encode()),
    "alpaca": ("a.json.gz", lambda lines: gzip.compress(f'{{"a": [{",".join(lines)}]}}'.encode())),
    "pairs": ("a.jsonl.zst", lambda lines: zstandard.compress("\n".join(lines).encode())),
}  # fmt: skip


@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("options", [{}, {"tools": "text", "empty": "drop"}])
def test_random_records(tmp_path, shape, options):
    rows, texts = make(shape, seed=len(options))
    name, pack = LAYOUTS[shape]
    path = tmp_path / name
    path.write_bytes(pack([text for text, _ in texts]))
    faults = check(path, rows, [twice for _, twice in texts], **options)
    assert faults.kinds["object has a key twice"] == sum(twice for _, twice in texts)


def test_random_tables(tmp_path):
    rng = random.Random(7)
    text = io.StringIO()
    table = csv.writer(text)
    columns = ("prompt", "completion", "weight", "train", "source")
    table.writerow(columns)
    rows = []
    for number in range(ROWS):
        row = Row(rng, number, "pairs")
        row.record = {"prompt": row.record["prompt"], "completion": row.record["completion"]}
        row.untrained = set(WORD.findall(str(row.record["prompt"])))
        for name in ("weight", "train"):
            value = rng.choice(("", "0", "1", "true", "False", "0.0", "x", "0.5"))
            row.record[name] = value
            if value in ("0", "False", "0.0"):
                row.untrained |= set(row.words)
        row.record["source"] = "s"
        row.settle()
        cells = [row.record.get(name) for name in columns]
        table.writerow(cells if rng.random() < 0.99 else cells[:-1])
        rows.append(row)
    path = tmp_path / "a.csv"
    path.write_text(text.getvalue(), newline="")
    check_table(path, rows)


def check_table(path, rows):
    faults = Faults()
    made = list(jsonl.read(path, faults=faults))
    assert faults.records == len(rows) == len(made) + faults.skipped
    assert faults.kinds["row has another number of cells than the first"] > 20
    by_number = {row.number: row for row in rows}
    for one in made:
        words = WORD.findall("".join(m["content"] for m in one["messages"]))
        if words:
            row = by_number[int(words[0][1:].split("x")[0])]
            trained = "".join(s.text for s in render(one["messages"]) if s.trained)
            assert words == row.words and not set(WORD.findall(trained)) & row.untrained
