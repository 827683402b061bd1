"""Conversations to tokens and loss mask, together, in one pass over the text.

A mask is never recovered afterwards by searching for markers: each part of the rendered text knows
whether it is trained, and the mask is written as the part's tokens are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tulu_jax.axes import Mask, TokenIds
from tulu_jax.chat import paper
from tulu_jax.chat.messages import Messages, check_messages
from tulu_jax.chat.segments import Segment, join
from tulu_jax.chat.stretches import Stretch, encode_pieces, pieces_of
from tulu_jax.chat.tokenizer import Tokenizer
from tulu_jax.errors import ConfigError, GuardError
from tulu_jax.processes import all_cores

BATCH = 64
"""How many conversations `encode_many` hands to the tokenizer at a time. Bounds memory only."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A conversation as tokens. `loss_mask[i]` says that token i is a target that carries loss.

    The mask is aligned with targets and not shifted: the logits at i-1 predict a trained token i.
    `truncated` says that tokens were cut off at `max_length`.
    """

    tokens: TokenIds
    loss_mask: Mask
    truncated: bool = False

    @property
    def loss_tokens(self) -> int:
        """How many tokens carry loss."""
        return int(self.loss_mask.sum())

    @property
    def dropped(self) -> bool:
        """Whether no token carries loss, so that the conversation teaches nothing."""
        return not self.loss_mask.any()


def encode(messages: Messages, tokenizer: Tokenizer, max_length: int | None = None) -> Encoded:
    r"""The tokens of a conversation and which of them carry loss.

    Loss falls on every assistant turn's content and EOS, on the newline after an EOS that is not
    the last, and on nothing else (one exception: `render`). Tokens beyond `max_length` are cut off.
    With LLaMA's tokenizer, user "2+2?" and assistant "4" (each line goes on in the second block):

        token      <s>   ▁<      |  user      |      >  \n      2      +      2      ?  \n
        id           1  529  29989  1792  29989  29958  13  29906  29974  29906  29973  13
        loss_mask    0    0      0     0      0      0   0      0      0      0      0   0

        token          <      |  ass  istant      |      >  \n      4  </s>
        id         29966  29989  465   22137  29989  29958  13  29946     2
        loss_mask      0      0    0       0      0      0   0      1     1

    Raises:
        DataError: the messages are not a conversation (`check_messages`).
        ConfigError: `max_length` is less than 1.

    Source: allenai/open-instruct, `encode_with_messages_format`@e44fcf588; its output
    on 448 conversations, each at two lengths, is a test.
    """
    return encode_many([messages], tokenizer, max_length, threads=1, at="messages")[0]


def encode_many(
    conversations: Sequence[Messages],
    tokenizer: Tokenizer,
    max_length: int | None = None,
    *,
    threads: int | None = None,
    at: str | None = None,
) -> list[Encoded]:
    """`encode` of each conversation, by `threads` threads (all cores when None).

    Errors name the conversation's index, or `at` where that is given.
    """
    if max_length is not None and max_length < 1:
        raise ConfigError("max_length is too small", got=max_length, expected="1 or more")
    threads = threads or all_cores()
    result: list[Encoded] = []
    for start in range(0, len(conversations), BATCH):
        batch = conversations[start : start + BATCH]
        for index, messages in enumerate(batch, start):
            place = at if at is not None else f"conversation {index}"
            check_messages(messages, place)
            tokenizer.template.check(messages, place)
        result += _encode_batch(batch, tokenizer, max_length, threads)
    return result


def encode_prompt(messages: Messages, tokenizer: Tokenizer, *, at: object = "messages") -> TokenIds:
    """The tokens up to where the assistant's next answer starts, BOS first.

    Errors name the place `at`.

    They are a prefix of the training tokens of the same conversation with an answer behind it.
    (With encoding `paper` that does not hold for an empty answer, or one that starts with the text
    of a special token: the paper's tokenizer then swallows the newline after the marker.)
    """
    check_messages(messages, at)
    tokenizer.template.check(messages, at, generation_prompt=True)
    if tokenizer.encoding == "paper" and paper.has_special_text(messages, tokenizer):
        return np.array(paper.prompt_tokens(messages, tokenizer), np.int32)
    segments = tokenizer.template.render(messages, generation_prompt=True)
    if tokenizer.template.name != "tulu":
        return _encode_segments([segments], tokenizer, None, 1)[0].tokens
    parts = _parts(segments, tokenizer)
    return _assemble(parts, _tokens_of(parts, tokenizer), tokenizer, None).tokens


def prompt_differs(tokenizer: Tokenizer) -> bool:
    """Whether prompts end in other tokens than stand before an answer in training.

    So it is where a tokenizer cuts the template's last text otherwise once more text follows, as
    GPT-2's cuts the two newlines of Llama 3's template. transformers has the same difference.
    """
    question: Messages = [{"role": "user", "content": "4"}]
    prompt = encode_prompt(question, tokenizer).tolist()
    whole = encode([*question, {"role": "assistant", "content": "4"}], tokenizer).tokens
    return whole[: len(prompt)].tolist() != prompt


def check_bos(tokens: TokenIds, tokenizer: Tokenizer, *, at: object = "tokens") -> None:
    """Passes when a conversation's tokens hold exactly one BOS, at their start.

    Where BOS may stand for something else later, only a second one straight after the first is
    refused: encoding `paper` turns a literal `<s>` in text into BOS, as the paper did, and OPT's
    BOS is its EOS, and LLaMA 2's chat template begins each of the user's turns with one.
    Tokenizers and chat templates without BOS have nothing to check.

    Raises:
        GuardError: no BOS in front, or another one later.
    """
    if tokenizer.bos_in_front is None:
        return
    ids = np.asarray(tokens)
    places = np.flatnonzero(ids == tokenizer.bos_id)
    later = places[places > 0] if tokenizer.bos_once else places[places == 1]
    if not places.size or places[0] != 0:
        first = tokenizer.piece(int(ids[0])) if ids.size else "no token"
        raise GuardError(
            "conversation does not start with BOS",
            got=repr(first),
            at=at,
            expected=repr(tokenizer.piece(tokenizer.bos_in_front)),
        )
    if later.size:
        raise GuardError(
            "conversation has more than one BOS",
            got=f"BOS at positions 0 and {later[0]}",
            at=at,
            expected="exactly one, at position 0",
            do="let only one of template and tokenizer add it",
        )


def _encode_batch(
    batch: Sequence[Messages], tokenizer: Tokenizer, max_length: int | None, threads: int
) -> list[Encoded]:
    """`encode` of conversations that are known to be well-formed."""
    render = tokenizer.template.render
    if tokenizer.template.name != "tulu":
        return _encode_segments([render(m) for m in batch], tokenizer, max_length, threads)
    exact = tokenizer.encoding == "paper"
    slow = {i for i, m in enumerate(batch) if exact and paper.has_special_text(m, tokenizer)}
    rendered = [[] if i in slow else _parts(render(m), tokenizer) for i, m in enumerate(batch)]
    tokens = _tokens_of((part for parts in rendered for part in parts), tokenizer, threads)
    result: list[Encoded] = []
    for index, parts in enumerate(rendered):
        if index in slow:
            ids, mask, cut = paper.encode_by_prefixes(batch[index], tokenizer, max_length)
            result.append(Encoded(np.array(ids, np.int32), np.array(mask, np.bool_), cut))
        else:
            result.append(_assemble(parts, tokens, tokenizer, max_length))
    return result


def _encode_segments(
    batch: Sequence[list[Segment]], tokenizer: Tokenizer, max_length: int | None, threads: int
) -> list[Encoded]:
    """Conversations from the segments of any template but Tülu's, which cuts text further."""
    pieces = [pieces_of(segments, tokenizer) for segments in batch]
    texts = [one.text for own in pieces for one in own if isinstance(one, Stretch)]
    tokens = iter(tokenizer.encode_after_newline(texts, threads=threads))
    result = []
    for own in pieces:
        ids, mask = encode_pieces(own, tokens, tokenizer)
        cut = max_length is not None and len(ids) > max_length
        result.append(Encoded(ids[:max_length], mask[:max_length], cut))
    return result


def _parts(segments: list[Segment], tokenizer: Tokenizer) -> list[Segment]:
    """What is tokenized apart: stretches of one mask value, cut by each EOS, as after a newline."""
    exact = tokenizer.encoding == "paper"
    parts = join(paper.as_the_paper_did(segments) if exact else segments)
    at_start = True
    for index, part in enumerate(parts):
        if at_start and part.kind != "eos":
            parts[index] = part._replace(text=tokenizer.opening(part.text))
        at_start = exact and part.kind == "eos"
    return parts


def _tokens_of(
    parts: Iterable[Segment], tokenizer: Tokenizer, threads: int = 1
) -> Iterator[TokenIds]:
    """The ids of each part that is not an EOS, in order, from one call of the tokenizer."""
    texts = [part.text for part in parts if part.kind != "eos"]
    return iter(tokenizer.encode_after_newline(texts, threads=threads))


def _assemble(
    parts: list[Segment], tokens: Iterator[TokenIds], tokenizer: Tokenizer, max_length: int | None
) -> Encoded:
    """Joins the parts' ids behind BOS and writes the mask beside them."""
    eos = np.array([tokenizer.eos_id], np.int32)
    pieces = [np.array(tokenizer.start_ids, np.int32)]
    pieces += [eos if part.kind == "eos" else next(tokens) for part in parts]
    trained = [parts[0].trained, *(part.trained for part in parts)]
    mask = np.repeat(trained, [len(piece) for piece in pieces])
    ids = np.concatenate(pieces)
    cut = max_length is not None and len(ids) > max_length
    return Encoded(ids[:max_length], mask[:max_length], cut)
