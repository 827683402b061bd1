"""ShareGPT: conversations with ChatGPT that its users made public, cut to a model's window.

The raw conversations are as long as they happened to be. How they are cut is the option `split`
(`SPLITS`); it counts tokens, so the records depend on the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tasks.convert import convert_rows
from tasks.name_filter import without_names
from tasks.raw_files import as_object, list_field, read_json_list, text_field
from tasks.record_ids import DistinctIds
from tasks.sharegpt_split import (
    PAPER_COST,
    LeaveOut,
    all_pairs_pieces,
    pair_starts,
    paper_pieces,
)
from tulu_jax.chat import Message, Tokenizer, check_messages, encode_many
from tulu_jax.chat.paper import tokens_of
from tulu_jax.data.faults import Faults
from tulu_jax.data.specs import Conversation, DatasetSpec, Source, register, unknown_name
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.processes import all_cores

HOMEPAGE = "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered"
FILES = ("sg_90k_part1_html_cleaned.json", "sg_90k_part2_html_cleaned.json")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant"}

SPLITS = ("all_pairs", "paper")
"""The ways to cut a conversation.

`all_pairs`: every question with its answer that fits `max_length` as it is trained on is in exactly
one piece, and no piece is longer. Other messages, and pairs too long, are left out and counted.
`paper`: the reference's pieces with all they lose: cut by an estimate of the length, without a last
pair that no longer fits, without pieces in which any sender but human and gpt has a turn, or in
which these do not take turns from the start.
"""

LONGEST_PIECE = 256
"""No token of any tokenizer stands for more characters than this."""

BATCH = 256
"""Conversations that are tokenized in one call. Bounds memory only."""


Pieces = list[tuple[int, int]]


@dataclass(frozen=True)
class _Talk:
    """One raw conversation: its id, and who said what, message by message."""

    name: str
    senders: list[str]
    texts: list[str]


_Cut = tuple[_Talk, Pieces]


def read(
    raw_dir: Path,
    *,
    tokenizer: Tokenizer | None = None,
    split: str = "all_pairs",
    max_length: int = 2048,
    filter_names: bool = False,
    faults: Faults | None = None,
    **_: Any,
) -> Iterator[Conversation]:
    """The pieces of all conversations; ids are `sharegpt_<conversation>_<first message>`.

    Raises: DataError for an unknown split; ConfigError without a tokenizer, or for `max_length`
        below 1.
    """
    if split not in SPLITS:
        raise unknown_name("split of sharegpt", split, SPLITS)
    if tokenizer is None:
        raise ConfigError(
            "sharegpt is cut by token counts", got="no tokenizer", do="name one (tokenizer)"
        )
    if max_length < 1:
        raise ConfigError("max_length is too small", got=max_length, expected="1 or more")
    faults = Faults(strict=True) if faults is None else faults
    cut = _paper if split == "paper" else _all_pairs
    distinct = DistinctIds()

    def convert(_: int, row: _Cut | DataError, *, at: str) -> Iterator[Conversation]:
        if isinstance(row, DataError):
            raise DataError(str(row)) from row
        talk, pieces = row
        name = distinct(talk.name)
        for start, stop in pieces:
            spoken = zip(talk.senders[start:stop], talk.texts[start:stop], strict=True)
            yield {
                "dataset": "sharegpt",
                "id": f"sharegpt_{name}_{start}",
                "messages": [{"role": ROLES[who], "content": text} for who, text in spoken],
            }

    folder = Path(raw_dir)
    rows = chain.from_iterable(read_json_list(folder / name, faults) for name in FILES)
    cutter = partial(cut, tokenizer=tokenizer, max_length=max_length, leave_out=faults.leave_out)
    found = convert_rows(_cut_rows(rows, cutter), convert, faults)
    yield from without_names(found, faults, wanted=filter_names)


def _cut_rows(
    rows: Iterator[tuple[str, dict[str, Any]]], cutter: Callable[[list[_Talk]], list[Pieces]]
) -> Iterator[tuple[str, _Cut | DataError]]:
    """Every row's conversation with its pieces, or what is wrong with the row."""
    while batch := list(islice(rows, BATCH)):
        talks = [_talk(row, at) for at, row in batch]
        pieces = iter(cutter([talk for talk in talks if isinstance(talk, _Talk)]))
        for (at, _), talk in zip(batch, talks, strict=True):
            yield at, (talk, next(pieces)) if isinstance(talk, _Talk) else talk


def _talk(row: dict[str, Any], at: str) -> _Talk | DataError:
    """The conversation of a row, or what is wrong with it."""
    try:
        name = text_field(row, "id", at=at)
        turns = [
            as_object(turn, "message", at=at) for turn in list_field(row, "conversations", at=at)
        ]
        senders = [text_field(turn, "from", at=at) for turn in turns]
        texts = [text_field(turn, "value", at=at) for turn in turns]
        if texts:
            check_messages([{"role": "user", "content": text} for text in texts], at)
    except DataError as error:
        return error
    return _Talk(name, senders, texts)


def _paper(
    talks: list[_Talk], *, tokenizer: Tokenizer, max_length: int, leave_out: LeaveOut
) -> list[Pieces]:
    """The reference's pieces of each conversation."""
    texts = [text for talk in talks for text in talk.texts]
    costs = iter(_paper_costs(texts, tokenizer, max_length))
    result: list[Pieces] = []
    for talk in talks:
        own = list(islice(costs, len(talk.texts)))
        pieces = list(paper_pieces(own, max_length, leave_out=leave_out))
        kept = [(start, stop) for start, stop in pieces if _take_turns(talk.senders[start:stop])]
        if len(kept) < len(pieces):
            leave_out("piece in which not human and gpt take turns", len(pieces) - len(kept))
        result.append(kept)
    return result


def _paper_costs(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[int]:
    """What the reference takes for the length of each message; too much is as good as any more.

    Its slow tokenizer takes text such as `</s>` for the token, which a few messages have.
    """
    short = ["" if _too_long(text, max_length) else text for text in texts]
    encoded = tokenizer.encode_texts(short, threads=all_cores())
    special = tokenizer.special_strings
    costs: list[int] = []
    for text, kept, tokens in zip(texts, short, encoded, strict=True):
        if any(string in kept for string in special):
            length = len(tokens_of(kept, tokenizer))
        else:
            length = len(tokens) + len(tokenizer.start_ids)
        costs.append(PAPER_COST + (length if kept == text else max_length))
    return costs


def _too_long(text: str, max_length: int) -> bool:
    """Whether text cannot fit, which a few megabytes need no tokenizer to tell."""
    return len(text) > max_length * LONGEST_PIECE


def _take_turns(senders: Sequence[str]) -> bool:
    return all(who == ("human", "gpt")[place % 2] for place, who in enumerate(senders))


def _all_pairs(
    talks: list[_Talk], *, tokenizer: Tokenizer, max_length: int, leave_out: LeaveOut
) -> list[Pieces]:
    """The pieces of each conversation that hold all its pairs of question and answer."""
    starts = [
        pair_starts([ROLES.get(who) for who in talk.senders], leave_out=leave_out) for talk in talks
    ]
    texts = (
        (talk.texts[start], talk.texts[start + 1])
        for talk, own in zip(talks, starts, strict=True)
        for start in own
    )
    lengths = iter(_pair_lengths(list(texts), tokenizer, max_length))
    return [
        list(
            all_pairs_pieces(own, list(islice(lengths, len(own))), max_length, leave_out=leave_out)
        )
        for own in starts
    ]


def _pair_lengths(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, max_length: int
) -> list[int]:
    """The tokens of each question with its answer; of one that cannot fit, more than fit."""
    fits = [not any(_too_long(text.strip(), max_length) for text in pair) for pair in pairs]
    messages: list[list[Message]] = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for (question, answer), fit in zip(pairs, fits, strict=True)
        if fit
    ]
    lengths = (len(encoded.tokens) for encoded in encode_many(messages, tokenizer))
    return [next(lengths) if fit else max_length + 1 for fit in fits]


SPEC = register(
    DatasetSpec(
        name="sharegpt",
        version="1.0.0",
        description="Conversations with ChatGPT that users made public, cut to 2,048 tokens.",
        citation="""@misc{sharegpt,
  title = {ShareGPT: Share your wildest ChatGPT conversations},
  author = {Steven Tey and Dom Eccleston},
  year = {2023},
  url = {https://sharegpt.com},
}""",
        licence="none stated; the conversations are OpenAI's output and its users' text",
        homepage=HOMEPAGE,
        sources=tuple(
            Source(f"{HOMEPAGE}/resolve/main/HTML_cleaned_raw_dataset/{name}", name)
            for name in FILES
        ),
        # The paper's number, which is of the split `paper`.
        expected_examples={"train": 168_864},
        options={"split": "all_pairs", "max_length": 2048, "filter_names": False},
        needs_tokenizer=True,
        read=read,
    )
)

TULU_V2 = register(
    replace(
        SPEC,
        task="tulu_v2_sharegpt",
        description="Conversations with ChatGPT that users made public, cut to 4,096 tokens.",
        # The second paper's number, which is of the split `paper` and before names are left out.
        expected_examples={"train": 114_046},
        options={"split": "all_pairs", "max_length": 4096, "filter_names": True},
    )
)
