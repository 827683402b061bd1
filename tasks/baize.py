"""Baize: ChatGPT talking to itself, about questions taken from four sources.

A record is one text in which `[|Human|]` and `[|AI|]` mark the turns.

Source: paper-era open-instruct, `open_instruct/reformat_datasets.py@e44fcf588`,
`convert_baize_data`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.raw_files import read_json_list, text_field
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register
from tulu_jax.errors import DataError

HOMEPAGE = "https://github.com/project-baize/baize-chatbot"
PARTS = ("alpaca", "medical", "quora", "stackoverflow")
HUMAN, AI = "[|Human|]", "[|AI|]"


def read(raw_dir: Path, *, faults: Faults | None = None, **_: Any) -> Iterator[Conversation]:
    """The records of the four files one after the other, numbered through.

    As in the reference, a record without any turn stays, as a conversation without a message.
    """
    files = [Path(raw_dir) / f"{part}_chat_data.json" for part in PARTS]
    rows = chain.from_iterable(read_json_list(path, faults) for path in files)
    return convert_rows(rows, _convert, faults)


def _convert(index: int, row: dict[str, Any], *, at: str) -> Iterator[Conversation]:
    messages = turns(text_field(row, "input", at=at), at=at)
    yield {"dataset": "baize", "id": f"baize_{index}", "messages": messages}


def turns(text: str, *, at: str) -> list[dict[str, str]]:
    r"""The messages of a record's text, stripped.

    What comes before the first question is not said by anyone. A round without text or without an
    answer is left out, which is how a record ends.

    >>> turns("A talk.\n[|Human|] Hi!\n[|AI|] Hello.\n[|Human|] ", at="f, line 1")
    [{'role': 'user', 'content': 'Hi!'}, {'role': 'assistant', 'content': 'Hello.'}]

    Raises: DataError for a round with a second answer.
    """
    messages: list[dict[str, str]] = []
    for number, part in enumerate(text.split(HUMAN)[1:], start=1):
        if AI not in part:
            continue
        question, *answers = part.split(AI)
        if len(answers) > 1:
            raise DataError(
                "a question has more than one answer",
                got=f"{len(answers)} marks {AI} in round {number}",
                at=at,
                expected="one",
            )
        messages.append({"role": "user", "content": question.strip()})
        messages.append({"role": "assistant", "content": answers[0].strip()})
    return messages


SPEC = register(
    DatasetSpec(
        name="baize",
        version="1.0.0",
        description="ChatGPT in conversation with itself, from questions of four sources.",
        citation="""@article{xu2023baize,
  title = {Baize: An Open-Source Chat Model with Parameter-Efficient Tuning on Self-Chat Data},
  author = {Canwen Xu and Daya Guo and Nan Duan and Julian McAuley},
  journal = {arXiv preprint arXiv:2304.01196},
  year = {2023},
}""",
        licence="research use only",
        homepage=HOMEPAGE,
        sources=tuple(
            Source(
                f"https://raw.githubusercontent.com/project-baize/baize-chatbot/main/data/{name}",
                name,
                mirrors=(f"{HOMEPAGE}/raw/main/data/{name}",),
            )
            for name in (f"{part}_chat_data.json" for part in PARTS)
        ),
        expected_examples={"train": 210_311},
        read=read,
    )
)
