"""OpenAssistant Conversations: trees of messages that volunteers wrote and ranked.

A tree becomes the paths from its root to assistant messages, in the order of a depth-first walk.
Which paths is the option `rule`; each is what the reference did at a time (`RULES`).

Source: paper-era open-instruct, `open_instruct/reformat_datasets.py`, `convert_oasst1_data`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.name_filter import without_names
from tasks.raw_files import as_object, list_field, read_jsonl, text_field
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register, unknown_name
from tulu_jax.errors import ConfigError, DataError

FILE = "2023-04-12_oasst_ready.trees.jsonl"
ROLES = {"prompter": "user", "assistant": "assistant"}

RULES = ("leaf", "every", "october")
"""The ways to cut a tree into conversations.

`leaf` (August 2023, the paper's count fits it): the paths to assistant messages without any reply;
a message that names the assistant (`NAMES`) is left out with all that follows it.
`every` (June 2023): the paths to every assistant message, so that beginnings are repeated.
`october` (October 2023, Tülu 2): leaf paths; deleted messages are left out with all that follows,
names are kept, and with `top_k` only the best replies to each message are followed.
"""

NAMES = ("LAION", "Open Asssistant", "OpenAssistant")
"""What the rule `leaf` looks for; the second is misspelt in the reference, and so never found."""

Turn = dict[str, str]


def read(
    raw_dir: Path,
    *,
    rule: str = "leaf",
    top_k: int | None = None,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """The conversations of all trees, numbered through.

    Raises: DataError for an unknown rule; ConfigError for `top_k` where the rule has no use for it.
    """
    if rule not in RULES:
        raise unknown_name("rule of oasst1", rule, RULES)
    if top_k is not None and (rule != "october" or top_k < 1):
        raise ConfigError(
            "oasst1 cannot use top_k",
            got=f"top_k {top_k} with rule {rule!r}",
            expected="1 or more, with rule 'october'",
        )
    numbers = itertools.count()

    def convert(_: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
        for messages in list(paths(row.get("prompt"), rule, top_k=top_k, at=at)):
            yield {"dataset": "oasst1", "id": f"oasst1_{next(numbers)}", "messages": messages}

    found = convert_rows(read_jsonl(Path(raw_dir) / FILE, faults), convert, faults)
    yield from without_names(found, faults, wanted=filter_names)


def paths(root: object, rule: str, *, top_k: int | None = None, at: str) -> Iterator[list[Turn]]:
    """The conversations of one tree, given its root message.

    Raises: DataError for a message that lacks `text`, `role` or `replies`, or has another role.
    """
    first = _message(root, at)
    followed: list[Turn] = []
    waiting = [iter([] if _left_out(first, rule) else [first])]
    while waiting:
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
            del followed[-1:]
            continue
        followed.append({"role": ROLES[node["role"]], "content": node["text"]})
        replies = [_message(reply, at) for reply in node["replies"]]
        if node["role"] == "assistant" and (rule == "every" or not replies):
            yield list(followed)
        kept = [reply for reply in replies if not _left_out(reply, rule)]
        if rule == "october" and top_k is not None:
            kept = sorted(kept, key=_quality, reverse=True)[:top_k]
        waiting.append(iter(kept))


def _message(node: object, at: str) -> dict[str, Any]:
    """The message itself, once it is known to have what the walk needs."""
    message = as_object(node, "message", at=at)
    text_field(message, "text", at=at)
    list_field(message, "replies", at=at)
    if (role := text_field(message, "role", at=at)) not in ROLES:
        raise DataError(
            "message has an unknown role", got=ascii(role)[:60], at=at, expected=" or ".join(ROLES)
        )
    return message


def _left_out(node: dict[str, Any], rule: str) -> bool:
    if rule == "leaf":
        return any(name in node["text"] for name in NAMES)
    return rule == "october" and bool(node.get("deleted"))


def _quality(node: dict[str, Any]) -> float:
    """How good volunteers found a reply, 0 to 1; 0 where nobody said."""
    value: Any = node
    for name in ("labels", "quality", "value"):
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0


SPEC = register(
    DatasetSpec(
        name="oasst1",
        version="1.0.0",
        description="Conversation trees in 35 languages, written and ranked by volunteers.",
        citation="""@misc{kopf2023openassistant,
  author = {Andreas Köpf and Yannic Kilcher and Dimitri von Rütte and Sotiris Anagnostidis and
            Zhi-Rui Tam and Keith Stevens and Abdullah Barhoum and Nguyen Minh Duc and
            Oliver Stanley and Richárd Nagyfi and Shahul ES and Sameer Suri and
            David Glushkov and Arnav Dantuluri and Andrew Maguire and Christoph Schuhmann and
            Huu Nguyen and Alexander Mattick},
  title = {OpenAssistant Conversations -- Democratizing Large Language Model Alignment},
  year = {2023},
  eprint = {2304.07327},
  archivePrefix = {arXiv},
}""",
        licence="Apache-2.0",
        homepage="https://huggingface.co/datasets/OpenAssistant/oasst1",
        sources=(
            Source(
                f"https://huggingface.co/datasets/OpenAssistant/oasst1/resolve/main/{FILE}.gz",
                FILE,
                packed="gz",
            ),
        ),
        expected_examples={"train": 34_795},
        options={"rule": "leaf", "top_k": None, "filter_names": False},
        read=read,
    )
)

TULU_V2 = register(
    replace(
        SPEC,
        task="tulu_v2_oasst1",
        description="The best-rated path of each tree of OpenAssistant Conversations.",
        # The second paper's number, before names are left out.
        expected_examples={"train": 7_708},
        options={"rule": "october", "top_k": 1, "filter_names": True},
    )
)
