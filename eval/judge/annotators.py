r"""What a judge of pairs is asked, and what its reply says.

An *annotator* is one of the alpaca_eval package's: a prompt that shows an instruction and two
outputs, and how a reply is read. Prompts are that package's to the letter, so that judgements can
be compared with its published ones.

A reply is read as a whole or not at all. Nothing is searched for in it, for it may quote the
outputs, and these may hold the very words that a verdict is written in.

Source: tatsu-lab/alpaca_eval:src/alpaca_eval/{evaluators_configs,completion_parsers.py}@cd543a14
(Apache-2.0).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.harness.asks import Answer

FOLDER = Path(__file__).with_name("prompts")
LONGEST_REPLY = 10_000
"""Characters of the longest reply that is looked at; a verdict has fewer than 200."""
MODELS = ("model_1", "model_2")
FIRST, SECOND = 1.0, 2.0
"""Which of the outputs shown is better; between them how likely each is."""
PAIR_OF_PADDING = ("1+1=", "2", "3")
"""Fills up the last prompt of an annotator that shows several pairs, as the package does."""

_PLACES = re.compile(r"{(instruction|output_1|output_2)}")
_FENCED = re.compile(r"```[a-z]*\n(.*)\n```", re.DOTALL)
_OUTPUT = re.compile(r"(?:^|\n) ?Output \(([ab])\)")


@dataclasses.dataclass(frozen=True)
class Annotator:
    """A prompt for judges of pairs."""

    name: str
    """The package's."""
    model: str
    """The endpoint's model that the package asks, where nobody says otherwise."""
    file: str
    """The prompt's, in `FOLDER`: messages between the marks of ChatML."""
    max_tokens: int
    pairs: int = 1
    """So many are shown at once."""
    words: tuple[str, ...] = ()
    """What the reply is one of, judged by how likely each is; the first is for the first output."""

    @functools.cached_property
    def messages(self) -> tuple[str, str]:
        """The system's message and the user's, with places to fill."""
        text = (FOLDER / self.file).read_text(encoding="utf-8")
        found = re.findall(r"<\|im_start\|>(?:system|user)\n(.*?)<\|im_end\|>", text, re.DOTALL)
        system, user = (message.strip() for message in found)
        return system, user

    def ask(self, pairs: Sequence[tuple[str, str, str]]) -> tuple[str, str]:
        """The messages of system and user that show these pairs.

        All places are filled at once, so that an output which holds the name of a place stays as
        it is. (The package fills one after the other, and would put the next output into it.)

        Args:
          pairs: instruction, first output and second output of each; as many as `pairs`, or fewer.
        """
        shown = [*pairs, *[PAIR_OF_PADDING] * (self.pairs - len(pairs))]
        names = ("instruction", "output_1", "output_2")
        left = {name: iter([pair[place] for pair in shown]) for place, name in enumerate(names)}
        system, user = self.messages
        return system, _PLACES.sub(lambda match: plain(next(left[match[1]])), user)

    def read(self, answer: Answer, *, consistent: bool = True) -> list[float] | None:
        """Which output of each pair is better, 1 to 2; None where the reply does not say.

        Args:
          answer: of the judge.
          consistent: whether a reply that contradicts itself says nothing.
        """
        if self.words:
            return read_words(answer, self.words)
        if answer.output is None or len(answer.output) > LONGEST_REPLY:
            return None
        if self.pairs > 1:
            return read_list(answer.output, self.pairs)
        return read_ranking(answer.output, consistent=consistent)


ANNOTATORS: Mapping[str, Annotator] = {
    one.name: one
    for one in (
        Annotator("alpaca_eval_gpt4", "gpt-4-0613", "alpaca_eval.txt", 100),
        Annotator("alpaca_eval_gpt4_0314", "gpt-4-0314", "alpaca_eval.txt", 100),
        Annotator(
            "alpaca_farm_greedy_gpt4", "gpt-4-0314", "chatml_b5_without_inputs.txt", 250, pairs=5
        ),
        Annotator(
            "weighted_alpaca_eval_gpt4_turbo", "gpt-4-1106-preview", "alpaca_eval_clf.txt", 1,
            words=("m", "M"),
        ),
    )
}  # fmt: skip


def plain(text: str) -> str:
    r"""The text as it can be sent and encoded: halves of characters become U+FFFD.

    >>> plain("a\ud83d\ude00 b\ud800")
    'a😀 b�'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_ranking(reply: str, *, consistent: bool = True) -> list[float] | None:
    """The rank of model_1 in a reply that is a list of `{'model': ..., 'rank': 1 or 2}`.

    Args:
      reply: the list, as Python or JSON writes it, alone or as one fenced block.
      consistent: whether the other model, where it is there, must have the other rank.

    >>> read_ranking("[{'model': 'model_1', 'rank': 2}, {'model': 'model_2', 'rank': 1}]")
    [2.0]
    >>> read_ranking("[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 1}]")
    >>> read_ranking("model_1 is better: [{'model': 'model_1', 'rank': 1}]")
    """
    fenced = _FENCED.fullmatch(reply.strip()) if consistent else None
    entries = _literal(fenced[1].strip() if fenced else reply)
    if not isinstance(entries, list | tuple):
        return None
    ranks: dict[str, float] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        name, rank = entry.get("model"), entry.get("rank")
        if name not in MODELS or isinstance(rank, bool) or rank not in (1, 2):
            if consistent or name == MODELS[0]:
                return None
            continue
        if name in ranks and consistent:
            return None
        ranks.setdefault(name, float(rank))
    contradicts = len(ranks) == 2 and len(set(ranks.values())) == 1
    if MODELS[0] not in ranks or (consistent and contradicts):
        return None
    return [ranks[MODELS[0]]]


def _literal(text: str) -> object:
    """The value that a text spells in Python; None where it spells none."""
    try:
        with warnings.catch_warnings():  # an escape that is none, in text of others
            warnings.simplefilter("ignore")
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def read_list(reply: str, count: int) -> list[float] | None:
    r"""The choices of a reply with a line `Output (a)` or `Output (b)` for each pair.

    >>> read_list("### Which is best?\nOutput (b)\n\n###\nOutput (a)", 2)
    [2.0, 1.0]
    >>> read_list("Output (b)", 2)
    """
    found, rest = [], reply
    while (match := _OUTPUT.search(rest)) is not None:
        found.append(FIRST if match[1] == "a" else SECOND)
        rest = rest[match.end() :]
    return found if len(found) == count else None


def read_words(answer: Answer, words: Sequence[str]) -> list[float] | None:
    """1 plus the share of the second word of the probability of both.

    >>> read_words(Answer(logprobs=(math.log(0.2), math.log(0.6))), ("m", "M"))
    [1.75]
    >>> read_words(Answer(output="M"), ("m", "M"))  # an endpoint that tells no probabilities
    [2.0]
    """
    if answer.logprobs is not None and len(answer.logprobs) == len(words):
        weights = [math.exp(logprob) for logprob in answer.logprobs]
        total = sum(weights)
        return [FIRST + weights[1] / total] if 0 < total < math.inf else None
    said = (answer.output or "").strip()
    return [FIRST + words.index(said)] if said in words else None
