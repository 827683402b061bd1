"""One rule for every field of a user's record: honoured, refused, or counted and named.

Honoured fields are those of the shape (`shapes`), flags that say whether an answer is trained, and
`system`, beside the turns. Refused are those without which a conversation is another one: calls of
tools, images, a flag that is not understood. All others are counted: a field that may mean
something is named with the first place where it was met, `METADATA` in one line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tasks.json_window import BadRecord
from tulu_jax.data.faults import Faults

FLAGS = ("weight", "train", "training", "trainable", "loss", "loss_mask")
"""What OpenAI (`weight`), axolotl (`train`, `training`), ms-swift, xtuner and slime (`loss`) and
verl (`trainable`, `loss_mask`) call the flag of a message that says whether it is trained."""

_LIKE_FLAGS = re.compile("train|loss|mask|weight", re.IGNORECASE)

MEDIA = frozenset(
    ("image", "images", "image_url", "audio", "audios", "input_audio", "video", "videos")
)

# fmt: off
METADATA = frozenset((
    "id", "_id", "uid", "uuid", "guid", "key", "idx", "index", "row_id", "question_id",
    "conversation_id", "prompt_id", "message_id", "source", "src", "sources", "origin",
    "category", "categories", "dataset", "dataset_name", "data_source", "subset", "split",
    "score", "scores", "rating", "ratings", "quality", "rank", "tags", "tag", "topic", "topics",
    "subject", "task", "tasks", "task_type", "task_name", "subtask", "domain", "type",
    "difficulty", "level", "lang", "language", "languages", "license", "licence", "url", "link",
    "title", "author", "model", "model_name", "generator", "created", "created_at",
    "updated_at", "timestamp", "date", "time", "version", "hash", "md5", "sha256", "length",
    "num_turns", "n_turns", "num_tokens", "token_count", "tokens", "meta", "metadata", "extra",
    "info", "annotator", "annotations", "notes", "note", "comment", "comments", "status",
    "__index_level_0__", "", "Unnamed: 0",
))
# fmt: on
"""Fields that do not say what a conversation is."""


JUDGEMENTS = ("label", "kto_tag", "desirable", "is_desirable")
"""Fields of records for KTO that are false where the answer is what a model should not say."""


def _are_flags(value: Any) -> bool:
    """Whether a value is true, false, or a list of these or of 0 and 1."""
    if isinstance(value, list):
        return all(isinstance(one, bool | int) and one in (0, 1) for one in value)
    return isinstance(value, bool)


def is_absent(value: Any) -> bool:
    """Whether a field says nothing: null, or an empty text, list or object."""
    return value is None or value in ("", [], {})


def flag_of(fields: Mapping[str, Any], what: str, at: str) -> bool | None:
    """Whether the flags among a message's (or record's) fields say that it is trained.

    None when there is no flag. `what` is what the fields are of, for messages.

    Raises: BadRecord for a flag that is neither true, false, 0 nor 1, and for two that differ.
    """
    said: dict[str, bool] = {}
    for name in FLAGS:
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise BadRecord(
                f"{what} has a {name} that is neither 0 nor 1",
                got=ascii(value)[:60],
                at=at,
                expected="true or 1 for what is trained, false or 0 for what is not",
            )
        said[name] = bool(value)
    if len(set(said.values())) > 1:
        raise BadRecord(
            f"{what} has two flags that differ",
            got=", ".join(f"{name} {str(value).lower()}" for name, value in said.items()),
            at=at,
            expected="one answer to whether it is trained",
        )
    return next(iter(said.values()), None)


def count_unused(
    fields: Mapping[str, Any], known: Collection[str], what: str, *, at: str, faults: Faults
) -> None:
    """Counts the fields that are not `known` and say something; `what` is what they are of.

    Raises: BadRecord for a field without which the conversation is another one.
    """
    for name, value in fields.items():
        if name in known or is_absent(value):
            continue
        if name in MEDIA:
            raise BadRecord(
                f"{what} has {name}, which text cannot hold",
                at=at,
                expected="text alone",
                do="take such records out",
            )
        if _LIKE_FLAGS.search(name) and (what != "record" or _are_flags(value)):
            raise BadRecord(
                f"{what} has a flag that is not understood",
                got=f"field {ascii(name)[:60]}",
                at=at,
                expected=f"one of {', '.join(FLAGS)}, of a record or a message",
                do="rename it, or take it out if it does not say what is trained",
            )
        if what == "record" and name in JUDGEMENTS and value is False:
            raise BadRecord(
                "record says that its answer is a bad one",
                got=f"field {name!r} with false",
                at=at,
                expected="answers to learn from",
                do="take such records out, or the field if it means something else",
            )
        if name in METADATA:
            faults.ignore_metadata(name)
        else:
            of = "field" if what == "record" else f"{what} field"
            faults.ignore(f"{of} {ascii(name)[:60]}", at)
