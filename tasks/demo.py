"""`tulu_demo`: generated instructions whose answers can be checked, embedded in the code.

Questions about words, numbers, lists, short contexts and small facts, in varied wording, about
one in seven with a second turn. A small model trained from nothing learns to follow them within
minutes, so that following instructions can be *measured*: by exact match of the answer on
questions that were never seen. Which split a question belongs to is decided by a hash of its
content; the same question therefore never occurs in two splits.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tasks import demo_words as w
from tulu_jax.chat import Message
from tulu_jax.data.specs import Conversation, DatasetSpec, register

VERSION = "1.1.0"
SIZES = {"train": 48_000, "validation": 300, "test": 400}
SPLITS = tuple(SIZES)
TOKENIZER_DIR = Path(__file__).parent / "demo_tokenizer"
_HELD_OUT_PER_MILLE = {"validation": 60, "test": 80}


class Item(NamedTuple):
    """Questions with their answers, and the content that decides the split."""

    turns: tuple[tuple[str, str], ...]
    key: str


@dataclass(frozen=True)
class EvalItem:
    """A held-out question: the messages up to the last question, and the right answer."""

    id: str
    kind: str
    messages: list[Message]
    reference: str


def generate(split_name: str = "train") -> Iterator[Conversation]:
    """The split's conversations, always the same ones in the same order.

    Held-out splits hold every question once; `train` may repeat a question of a small kind.
    """
    rng = random.Random(f"tulu_demo {VERSION} {split_name}")
    names, weights = list(_KINDS), [weight for weight, _ in _KINDS.values()]
    seen: set[str] = set()
    index = 0
    while index < SIZES[split_name]:
        kind = rng.choices(names, weights)[0]
        item = _draw(rng, kind, split_name, seen if split_name != "train" else set())
        if item is None:
            continue
        seen.add(item.key)
        yield {
            "dataset": "demo",
            "id": f"demo_{split_name}_{index}_{kind}",
            "messages": [
                {"role": role, "content": text}
                for turn in item.turns
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ],
        }
        index += 1


def _draw(rng: random.Random, kind: str, split_name: str, seen: set[str]) -> Item | None:
    """A question of the kind that belongs to the split and is not in `seen`; None if too rare."""
    for _ in range(1000):
        item = _KINDS[kind][1](rng)
        if split_of(item.key) == split_name and item.key not in seen:
            return item
    return None


def split_of(key: str) -> str:
    """The split a question's content belongs to: a pure function of its hash."""
    draw = int.from_bytes(hashlib.sha256(f"{VERSION} {key}".encode()).digest()[:4], "big") % 1000
    for split_name, share in _HELD_OUT_PER_MILLE.items():
        if draw < share:
            return split_name
        draw -= share
    return "train"


def eval_items(split_name: str = "test") -> list[EvalItem]:
    """The held-out questions. Of a two-turn conversation the last turn is asked for."""
    return [
        EvalItem(
            id=record["id"],
            kind=record["id"].split("_", 3)[3],
            messages=record["messages"][:-1],
            reference=record["messages"][-1]["content"],
        )
        for record in generate(split_name)
    ]


def score(prediction: str, reference: str) -> float:
    """1.0 when the answer is exactly the reference, outer white space aside, else 0.0."""
    return float(prediction.strip() == reference.strip())


def read(raw_dir: Path | None = None, *, split_name: str = "train", **_: Any) -> Iterator:
    """The split's conversations; `raw_dir` is not used."""
    return generate(split_name)


# --- How each kind of question is made -------------------------------------------------------


def _ask(rng: random.Random, phrasing: str, **parts: object) -> str:
    """A question in one of its wordings, within one of the openings."""
    question = rng.choice(w.PHRASINGS[phrasing]).format(**parts)
    question = question[0].upper() + question[1:]
    return rng.choice(w.OPENINGS).format(q=question) if rng.random() < 0.25 else question


def _list(rng: random.Random, low: int, high: int) -> tuple[list[str], str]:
    words = rng.sample(w.THINGS, rng.randint(low, high))
    return words, " ".join(words)


def _nth(rng: random.Random) -> Item:
    words, text = _list(rng, 3, 3)
    place = rng.randrange(4)
    ordinal = "last" if place == 3 else w.ORDINALS[place]
    question = _ask(rng, "nth", n=ordinal, words=text)
    return Item(((question, words[min(place, 2)]),), f"list {text}")


def _repeat(rng: random.Random) -> Item:
    _, text = _list(rng, 3, 3)
    return Item(((_ask(rng, "repeat", words=text), text),), f"list {text}")


def _reverse(rng: random.Random) -> Item:
    words, text = _list(rng, 3, 3)
    answer = " ".join(reversed(words))
    return Item(((_ask(rng, "reverse", words=text), answer),), f"list {text}")


def _pick(rng: random.Random) -> Item:
    kinds = {"person": w.NAMES, "colour": w.COLOURS, "thing": w.THINGS, "place": w.PLACES}
    words = {kind: rng.choice(kinds[kind]) for kind in rng.sample(list(kinds), 3)}
    text = " ".join(words.values())
    kind = rng.choice(list(words))
    return Item(((_ask(rng, "pick", kind=kind, words=text), words[kind]),), f"list {text}")


def _is_a(rng: random.Random) -> Item:
    kinds = {"name": w.NAMES, "colour": w.COLOURS, "place": w.PLACES}
    kind, other = rng.sample(list(kinds), 2)
    yes = rng.random() < 0.5
    word = rng.choice(kinds[kind if yes else other])
    return Item(
        ((_ask(rng, "is_a", word=word, kind=kind), "yes" if yes else "no"),), f"{word} {kind}"
    )


def _count(rng: random.Random) -> Item:
    words, text = _list(rng, 2, 5)
    return Item(((_ask(rng, "count", words=text), str(len(words))),), f"list {text}")


def _scene_context(rng: random.Random) -> tuple[str, dict[str, str]]:
    parts = {
        "name": rng.choice(w.NAMES),
        "thing": rng.choice(w.THINGS),
        "colour": rng.choice(w.COLOURS),
        "place": rng.choice(w.PLACES),
    }
    return rng.choice(w.SCENES).format(**parts), parts


def _scene_question(rng: random.Random, asked: str, parts: dict[str, str]) -> tuple[str, str]:
    question = rng.choice(w.PHRASINGS[f"scene_{asked}"]).format(**parts)
    return question, f"in the {parts[asked]}" if asked == "place" else parts[asked]


def _scene(rng: random.Random) -> Item:
    context, parts = _scene_context(rng)
    question, answer = _scene_question(rng, rng.choice(list(parts)), parts)
    return Item(((f"{context} {question}", answer),), context)


def _scene_twice(rng: random.Random) -> Item:
    context, parts = _scene_context(rng)
    one, two = rng.sample(list(parts), 2)
    question, answer = _scene_question(rng, one, parts)
    second = _scene_question(rng, two, parts)
    return Item(((f"{context} {question}", answer), second), context)


def _colour_context(rng: random.Random) -> tuple[str, list[str], list[str]]:
    things, colours = rng.sample(w.THINGS, 2), rng.sample(w.COLOURS, 2)
    pattern = rng.choice(("The {0} is {1} and the {2} is {3}.", "I see a {1} {0} and a {3} {2}."))
    return pattern.format(things[0], colours[0], things[1], colours[1]), things, colours


def _colour(rng: random.Random) -> Item:
    context, things, colours = _colour_context(rng)
    pick = rng.randrange(2)
    question = rng.choice(w.PHRASINGS["colour"]).format(thing=things[pick])
    return Item(((f"{context} {question}", colours[pick]),), context)


def _colour_twice(rng: random.Random) -> Item:
    context, things, colours = _colour_context(rng)
    one, two = rng.sample(range(2), 2)
    question = rng.choice(w.PHRASINGS["colour"]).format(thing=things[one])
    second = (f"And the {things[two]}?", colours[two])
    return Item(((f"{context} {question}", colours[one]), second), context)


def _list_twice(rng: random.Random) -> Item:
    words, text = _list(rng, 3, 3)
    one, two = rng.sample(range(3), 2)
    first = (_ask(rng, "nth", n=w.ORDINALS[one], words=text), words[one])
    return Item((first, (f"And the {w.ORDINALS[two]}?", words[two])), f"list {text}")


def _compare(rng: random.Random) -> Item:
    kind = rng.choice(("larger", "smaller"))
    a, b = rng.sample(range(10), 2)
    answer = max(a, b) if kind == "larger" else min(a, b)
    return Item(((_ask(rng, kind, a=a, b=b), str(answer)),), f"numbers {a} {b}")


def _next(rng: random.Random) -> Item:
    number = rng.randrange(1, 99)
    question = _ask(rng, "next", a=number)
    return Item(((question, str(number + 1)),), question)


def _next_twice(rng: random.Random) -> Item:
    number = rng.randrange(1, 98)
    question = _ask(rng, "next", a=number)
    second = (rng.choice(("And then?", "And after that?")), str(number + 2))
    return Item(((question, str(number + 1)), second), question)


def _add(rng: random.Random) -> Item:
    a, b = rng.randrange(0, 11), rng.randrange(0, 11)
    question = _ask(rng, "add", a=a, b=b)
    return Item(((question, str(a + b)),), question)


def _spell(rng: random.Random) -> Item:
    word = rng.choice(w.LETTER_WORDS)
    question = _ask(rng, "spell", word=word)
    return Item(((question, " ".join(word)),), question)


def _letter(rng: random.Random) -> Item:
    word = rng.choice(w.LETTER_WORDS)
    question = _ask(rng, "letter", word=word)
    return Item(((question, word[0]),), question)


def _fact(phrasing: str, facts: dict[str, str]) -> Callable[[random.Random], Item]:
    """Questions answered from a fixed table; a held-out one is a new wording of a known fact."""
    words = sorted(facts)

    def make(rng: random.Random) -> Item:
        word = rng.choice(words)
        question = _ask(rng, phrasing, word=word)
        return Item(((question, facts[word]),), question)

    return make


_TOMORROW = dict(zip(w.DAYS, w.DAYS[1:] + w.DAYS[:1], strict=True))
_BOTH_WAYS = w.OPPOSITES | {b: a for a, b in w.OPPOSITES.items()}

_KINDS: dict[str, tuple[float, Callable[[random.Random], Item]]] = {
    "scene": (20, _scene),
    "scene_twice": (11, _scene_twice),
    "pick": (9, _pick),
    "is_a": (3, _is_a),
    "nth": (3, _nth),
    "list_twice": (1, _list_twice),
    "repeat": (1, _repeat),
    "reverse": (1, _reverse),
    "count": (4, _count),
    "colour": (2, _colour),
    "colour_twice": (2, _colour_twice),
    "compare": (3, _compare),
    "next": (5, _next),
    "next_twice": (3, _next_twice),
    "add": (7, _add),
    "opposite": (6, _fact("opposite", _BOTH_WAYS)),
    "plural": (5, _fact("plural", w.PLURALS)),
    "thing_colour": (4, _fact("thing_colour", w.NATURAL_COLOURS)),
    "sound": (4, _fact("sound", w.SOUNDS)),
    "category": (4, _fact("category", w.KINDS_OF_THING)),
    "day": (3, _fact("day", _TOMORROW)),
    "spell": (6, _spell),
    "letter": (5, _letter),
}

SPEC = register(
    DatasetSpec(
        name="demo",
        version=VERSION,
        description="Generated instructions of two dozen kinds with checkable short answers.",
        citation="Written for tulu-jax.",
        licence="Apache-2.0",
        homepage="",
        splits=SPLITS,
        expected_examples=SIZES,
        read=read,
    )
)
