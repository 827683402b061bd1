"""Which fields of a user's record hold its conversation, and that conversation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tasks.json_window import BadRecord
from tasks.own.fields import FLAGS, count_unused, flag_of, is_absent
from tasks.own.tools import with_tools
from tasks.own.turns import messages_of
from tasks.raw_files import list_field, text_field
from tasks.templates import encode_instruction
from tulu_jax.data.faults import Faults
from tulu_jax.errors import ConfigError, DataError

Shape = Literal["messages", "alpaca", "sharegpt"]

SHAPES: dict[Shape, str] = {
    "messages": "messages, or prompt and completion",
    "alpaca": "instruction, input and output (Alpaca)",
    "sharegpt": "conversations of from and value (ShareGPT)",
}

COLUMNS = ("messages", "conversations", "prompt", "completion", "instruction", "input", "output",
           "system", "id")  # fmt: skip
"""The fields that the option `columns` can find in other columns."""

TOOLS = ("tools", "functions")
LISTS = frozenset(("messages", "conversations", "history", "tool_calls", "loss_mask", *TOOLS))
"""Fields of a record that are lists, and so no list of records."""

_SYSTEM = ("system", "system_prompt")
_CHAT, _PAIR = {"messages", "id"}, {"prompt", "completion", "id"}
_BESIDE = ("id", "history", *_SYSTEM, *FLAGS)
_OWN = {
    "messages": ("messages", "prompt", "completion"),
    "alpaca": ("instruction", "input", "output"),
    "sharegpt": ("conversations",),
}


def shape_of(row: Mapping[str, Any]) -> Shape | None:
    """The shape that a record's fields have, null ones left aside; None for one not known.

    >>> shape_of({"instruction": "Add.", "input": "1 2", "output": "3"})
    'alpaca'
    """
    if _has(row, "messages") or _has(row, "prompt", "completion"):
        return "messages"
    if _has(row, "conversations"):
        return "sharegpt"
    return "alpaca" if _has(row, "instruction", "output") else None


def _has(row: Mapping[str, Any], *names: str) -> bool:
    return all(row.get(name) is not None for name in names)


def common_shape(rows: Iterable[Mapping[str, Any]]) -> Shape | None:
    """The shape that most of the records have, of equally many the first; None when none has one.

    >>> common_shape([{"text": ""}, {"prompt": "", "completion": ""}])
    'messages'
    """
    counts: Counter[Shape] = Counter()
    counts.update(shape for row in rows if (shape := shape_of(row)) is not None)
    return counts.most_common(1)[0][0] if counts else None


def is_turn(value: Mapping[str, Any]) -> bool:
    """Whether an object is one turn of a conversation and no record."""
    return "role" in value or ("from" in value and "value" in value)


def parse_columns(given: Any) -> dict[str, str]:
    """The option `columns` as field -> column.

    >>> parse_columns("prompt=question, completion=answer")
    {'prompt': 'question', 'completion': 'answer'}

    Raises: ConfigError for what is not `field=column,...`, and a field that is none of `COLUMNS`.
    """
    if given is None:
        return {}
    pairs = dict(given) if isinstance(given, Mapping) else {}
    if isinstance(given, str):
        parts = (part.partition("=") for part in given.split(","))
        pairs = {field: column for field, _, column in parts}
    found = {str(field).strip(): str(column).strip() for field, column in pairs.items()}
    if not found or not all(field in COLUMNS and column for field, column in found.items()):
        raise ConfigError(
            "columns are not understood",
            got=repr(given)[:200],
            expected="field=column, joined by commas; fields are " + ", ".join(COLUMNS),
            do="for instance --columns prompt=question,completion=answer",
        )
    return found


def renamed(row: dict[str, Any], columns: Mapping[str, str], at: str) -> dict[str, Any]:
    """The record with its columns under the names of the fields that they are.

    Raises: BadRecord for a column that it does not have.
    """
    if not columns:
        return row
    kept = {name: v for name, v in row.items() if name not in columns.values()}
    for field, column in columns.items():
        if column not in row:
            names = ", ".join(ascii(name)[1:-1] for name in row)[:200]
            raise BadRecord(f"missing column {column!a}", got=f"fields {names}", at=at)
        if field in kept:
            kept[f"{field} (not the one that columns name)"] = kept.pop(field)
        kept[field] = row[column]
    return kept


class Converter:
    """Makes messages of records of one shape; `random` draws the templates of Alpaca's."""

    def __init__(self, faults: Faults, *, tools: bool = False) -> None:
        self.faults, self.tools = faults, tools
        self.random = random.Random(42)

    def messages(self, row: dict[str, Any], shape: Shape, at: str) -> list[dict[str, Any]]:
        """The conversation of a record of this shape.

        Raises: DataError for a record of another shape, or without a conversation.
        """
        own = shape_of(row)
        if own is not None and own != shape:
            raise _other_shape(row, shape, at)
        messages = self._turns(row, shape, at)
        if row.keys() <= _CHAT or row.keys() <= _PAIR:
            return messages
        messages = self._flagged(messages, row, at)
        messages = _with_system(messages, row, at)
        _refuse_history(row, at)
        known = (*_OWN[shape][: 1 if _has(row, "messages") else None], *_BESIDE)
        if self.tools:
            for name in TOOLS:
                messages = with_tools(messages, row.get(name), at)
            known = (*known, *TOOLS)
        count_unused(row, known, "record", at=at, faults=self.faults)
        return messages

    def _turns(self, row: dict[str, Any], shape: Shape, at: str) -> list[dict[str, Any]]:
        if shape == "alpaca":
            texts = [text_field(row, name, at=at) for name in ("instruction", "output")]
            context = text_field(row, "input", at=at, optional=True)
            pair = encode_instruction(*texts, context=context, rng=self.random)
            return _pair(*pair)
        field = "conversations" if shape == "sharegpt" else "messages"
        if field in row and not (row[field] is None and _has(row, "prompt", "completion")):
            turns = list_field(row, field, at=at)
            return messages_of(turns, at=at, faults=self.faults, tools=self.tools)
        if "prompt" not in row and "completion" not in row:
            raise no_conversation(row, at)
        if isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
            return self._of_lists(row["prompt"], row["completion"], at)
        return _pair(text_field(row, "prompt", at=at), text_field(row, "completion", at=at))

    def _of_lists(self, prompt: list[Any], completion: list[Any], at: str) -> list[dict[str, Any]]:
        """Messages of a prompt, of which no answer is trained, and those of the completion."""
        if isinstance((*prompt, *completion, None)[0], str):
            raise BadRecord(
                "prompt and completion are lists of texts", at=at, expected="one text each",
                do="write one object a row (in pandas: orient='records')",
            )  # fmt: skip
        given = {"faults": self.faults, "tools": self.tools}
        before = messages_of(prompt, at=f"{at}, prompt", **given)
        after = messages_of(completion, at=f"{at}, completion", **given)
        answers = [message["role"] == "assistant" for message in before]
        pairs = zip(before, answers, strict=True)
        return [*({**one, "train": False} if answer else one for one, answer in pairs), *after]

    def _flagged(
        self, messages: list[dict[str, Any]], row: dict[str, Any], at: str
    ) -> list[dict[str, Any]]:
        """The messages with the flags of the whole record laid over them."""
        flags = {name: row[name] for name in FLAGS if row.get(name) is not None}
        if not flags:
            return messages
        masks = flags.pop("loss_mask") if isinstance(flags.get("loss_mask"), list) else None
        if isinstance(flags.get("loss"), float | int) and flags["loss"] not in (0, 1):
            self.faults.ignore("field 'loss'", at)  # what a model's loss was
            del flags["loss"]
        if masks is None:
            masks = [1] * len(messages)
        elif len(masks) != len(messages):
            raise BadRecord(
                "loss_mask does not fit the messages",
                got=f"{len(masks)} flags for {len(messages)} messages",
                at=at,
                expected="one for each",
            )
        whole = flag_of(flags, "record", at)
        return [
            {**message, "train": False}
            if whole is False or flag_of({"loss_mask": mask}, "record", at) is False
            else message
            for message, mask in zip(messages, masks, strict=True)
        ]


def _pair(prompt: str, completion: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": completion},
    ]


def _with_system(
    messages: list[dict[str, Any]], row: dict[str, Any], at: str
) -> list[dict[str, Any]]:
    """The messages after the system message that stands beside them in the record, if any does."""
    said = {name: row[name] for name in _SYSTEM if not is_absent(row.get(name))}
    texts = {text_field(said, name, at=at) for name in said}
    if not texts:
        return messages
    inside = [m["content"] for m in messages if m["role"] == "system"]
    if len(texts) > 1 or (inside and inside != list(texts)):
        raise BadRecord(
            "record has two system messages",
            got=f"{' and '.join(said)}, and {len(inside)} among its messages",
            at=at,
            expected="one",
        )
    return messages if inside else [{"role": "system", "content": texts.pop()}, *messages]


def _refuse_history(row: dict[str, Any], at: str) -> None:
    if not is_absent(row.get("history")):
        raise BadRecord(
            "record has a history of earlier turns beside its own",
            got="field 'history'",
            at=at,
            expected="all turns in one list",
            do="put them into messages",
        )


def _other_shape(row: dict[str, Any], shape: Shape, at: str) -> DataError:
    return DataError(
        "record has another shape than the first ones",
        got=f"fields {field_names(row)}",
        at=at,
        expected=SHAPES[shape],
        do="put records of each shape into a file of their own",
    )


def no_conversation(row: Mapping[str, Any], at: str) -> DataError:
    """The error of a record that has none of the shapes, with the columns that may be meant."""
    return DataError(
        "record has no conversation",
        got=f"fields {field_names(row)}",
        at=at,
        expected="; or ".join(SHAPES.values()),
        do=suggestion(row),
    )


def field_names(row: Mapping[str, Any]) -> str:
    """The names of a record's fields, in few words."""
    return ", ".join(ascii(name)[1:-1] for name in row)[:200] or "none"


QUESTIONS = ("prompt", "question", "query", "instruction", "input", "problem", "user", "human",
             "source", "context")  # fmt: skip
ANSWERS = ("completion", "answer", "response", "output", "chosen", "solution", "assistant",
           "target", "reply", "gpt")  # fmt: skip


def _text_called(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The field that holds text under the first of these names, in letters of any size."""
    texts = {name.lower(): name for name, value in row.items() if isinstance(value, str)}
    return next((texts[name] for name in names if name in texts), None)


def suggestion(row: Mapping[str, Any]) -> str | None:
    """What to do about a record of no known shape: the `--columns` that would map it.

    >>> suggestion({"question": "2+2?", "answer": "4"})
    'if that is meant: --columns prompt=question,completion=answer'
    """
    if is_turn(row):
        return 'put the messages of a conversation into a list: {"messages": [...]}'
    if "instruction" in row and "response" in row:
        more = ",input=context" if "context" in row else ",input=input" if "input" in row else ""
        return f"if that is meant: --columns instruction=instruction{more},output=response"
    asked, answered = _text_called(row, QUESTIONS), _text_called(row, ANSWERS)
    if asked and answered:
        return f"if that is meant: --columns prompt={asked},completion={answered}"
    listed = [name for name, value in row.items() if isinstance(value, list) and value]
    turns = [name for name in listed if isinstance(row[name][0], dict) and is_turn(row[name][0])]
    if turns and not {"content", "value"} & row[turns[0]][0].keys():
        return 'write each turn as role and content: {"messages": [{"role": ..., "content": ...}]}'
    if turns:
        return f"if that is meant: --columns messages={ascii(turns[0])[1:-1]}"
    if row and all(isinstance(value, dict) for value in row.values()):
        return "write what is in these fields as a JSON list of records"
    if {"columns", "data"} <= row.keys():
        return "write one object a row (in pandas: orient='records')"
    if set(row) == {"text"}:
        return "text alone does not say who speaks and what is trained: split it into messages"
    return "say which columns hold question and answer: --columns prompt=NAME,completion=NAME"
