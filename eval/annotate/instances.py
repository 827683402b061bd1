"""Instances to annotate: from the reference's JSON lines, or from what two models answered."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.annotate.records import ACCEPTABLE, Instance, check_models
from eval.harness.reading import PREDICTIONS, RUN, read_result
from tulu_jax.errors import DataError
from tulu_jax.files import kind_of_file, parse_json, sha256

_UNFIT = re.compile(r"[\x00\ud800-\udfff]")
"""What no database keeps as text: NUL and halves of characters."""
_CHAT = re.compile(r"<\|user\|>\n(.*)\n<\|assistant\|>\n", re.DOTALL)
LONGEST = 1_000_000
"""Characters of a prompt or completion, at most."""


def read_instances(path: Path) -> list[Instance]:
    """The instances of a file of JSON lines: {id, prompt, completions: [{model, completion} x 2]}.

    A line may have `gold`: {preference: name of a model or "tie", acceptable: {model: "yes" or
    "no"}}, one of them at least. A line without id has its number.

    Raises:
      DataError: the file is missing, empty or damaged, a line is not such an object, or an instance
        is there twice.
    """
    found = []
    for number, row in enumerate(_json_lines(path), 1):
        found.append(_instance(row, f"{path.name}, line {number}", str(number)))
    return check_instances(found, path)


def check_instances(found: Sequence[Instance], at: object) -> list[Instance]:
    """The instances, if there are any and each is there once.

    Raises: DataError.
    """
    if not found:
        raise DataError("there are no instances", at=at, expected="one at least")
    seen: set[tuple[str, frozenset[str]]] = set()
    for one in found:
        key = (one.id, frozenset(one.models))
        if key in seen:
            raise DataError("an instance is there twice", got=f"id {one.id!r} of {one.models}",
                            at=at, expected="each id once for a pair of models")  # fmt: skip
        seen.add(key)
    return list(found)


def _instance(row: dict[str, Any], at: str, number: str) -> Instance:
    completions = row.get("completions")
    if not isinstance(completions, list) or len(completions) != 2:
        raise DataError("instance has not two completions", got=repr(completions)[:60], at=at,
                        expected="completions: two of {model, completion}")  # fmt: skip
    sides = [one if isinstance(one, dict) else {} for one in completions]
    models = tuple(_words(one.get("model"), "model", at) for one in sides)
    check_models(models[0], models[1], at)
    return Instance(
        id=_words(row.get("id", number), "id", at),
        prompt=_words(row.get("prompt"), "prompt", at),
        models=(models[0], models[1]),
        completions=(_words(sides[0].get("completion"), "completion", at),
                     _words(sides[1].get("completion"), "completion", at)),
        gold=_gold(row.get("gold"), models, at),
    )  # fmt: skip


def _words(value: Any, name: str, at: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise DataError(f"instance has no {name}", got=repr(value)[:60], at=at, expected="text")
    if len(value) > LONGEST:
        raise DataError(f"{name} is too long to be read by anyone", at=at,
                        got=f"{len(value):,} characters",
                        expected=f"at most {LONGEST:,}")  # fmt: skip
    return fit(value)


def fit(text: str) -> str:
    r"""The text as databases keep it: U+FFFD for NUL and lone surrogates.

    >>> fit("a\x00b")
    'a\ufffdb'
    """
    return _UNFIT.sub("\ufffd", text)


def _gold(gold: Any, models: Sequence[str], at: str) -> dict[str, Any] | None:
    """What is right about an instance, checked."""
    if gold is None:
        return None
    known = isinstance(gold, dict) and gold and set(gold) <= {"preference", "acceptable"}
    labels = gold.get("acceptable", {}) if known else {}
    fits = known and isinstance(labels, dict) and set(labels) <= set(models)
    if not fits or not all(one in ACCEPTABLE for one in labels.values()):
        raise DataError("gold answer is not understood", got=json.dumps(gold)[:80], at=at,
                        expected='{"preference": MODEL, "acceptable": {MODEL: "yes"}}')  # fmt: skip
    if gold.get("preference", "tie") not in (*models, "tie"):
        raise DataError("gold answer prefers a model that is not there",
                        got=repr(gold["preference"]), at=at,
                        expected=", ".join(models))  # fmt: skip
    return gold


Answers = dict[str, tuple[str, str]]
"""Prompt and output by id."""


def pair_up(
    first: Path, second: Path, names: Sequence[str] = (), groups: Sequence[str] = ()
) -> tuple[list[Instance], int]:
    """The instances that two models answered, and how many only one of them did.

    Args:
      first: what one model answered: a result folder of `tulu eval`, a folder with
        `model_outputs.json` or such a file (AlpacaEval's format), or JSON lines of `tulu generate`
        and `eval.predict`.
      second: the same of the other.
      names: what the models are called, in place of what the files say.
      groups: of which instances are taken (AlpacaEval's files call a group `dataset`); all without.

    Raises:
      DataError: a file is missing or damaged, the two share no instance, or asked other prompts
        under one id.
    """
    answers, found = zip(*(read_answers(path, groups) for path in (first, second)), strict=True)
    models = tuple(names) or found
    check_models(models[0], models[1], f"{first} and {second}: --names")
    both = [name for name in answers[0] if name in answers[1]]
    if not both:
        raise DataError("the two models answered no instance in common",
                        got=f"{len(answers[0])} and {len(answers[1])}", at=f"{first} and {second}",
                        expected="answers of the same ids or instructions")  # fmt: skip
    instances = []
    for name in both:
        (prompt, one), (other_prompt, other) = answers[0][name], answers[1][name]
        if prompt != other_prompt:
            raise DataError("the two models were asked other prompts", got=repr(other_prompt)[:60],
                            at=f"{second}, id {name}", expected=repr(prompt)[:60])  # fmt: skip
        instances.append(Instance(name, prompt, (models[0], models[1]), (one, other)))
    return instances, len(answers[0].keys() ^ answers[1].keys())


def read_answers(path: Path, groups: Sequence[str] = ()) -> tuple[Answers, str]:
    """What one model answered, of these groups if any, and the name that the files give it.

    Raises: DataError, as `pair_up`.
    """
    if path.is_dir():
        if (path / RUN).is_file():
            result = read_result(path)
            rows = list(result.texts(result.instances))
            return _answers(_of(rows, groups, path), path / PREDICTIONS), result.model
        inner = path / "model_outputs.json"
        if not inner.is_file():
            raise DataError("folder holds no answers", at=path,
                            expected=f"{RUN} and {PREDICTIONS}, or {inner.name}")  # fmt: skip
        path = inner
    rows = _json_list(path) if path.suffix == ".json" else _json_lines(path)
    generators = {row["generator"] for row in rows if isinstance(row.get("generator"), str)}
    if len(generators) > 1:
        raise DataError("answers are of several models", got=sorted(generators)[:4], at=path,
                        expected="one generator")  # fmt: skip
    return _answers(_of(rows, groups, path), path), generators.pop() if generators else path.stem


def _of(
    rows: Sequence[dict[str, Any]], groups: Sequence[str], path: Path
) -> Sequence[dict[str, Any]]:
    """The rows of these groups; all without any."""
    if not groups:
        return rows
    found = [_group(row) for row in rows]
    for name in groups:
        if name not in found:
            known = sorted({str(one) for one in found if one is not None})
            raise DataError("there is no instance of a group", got=repr(name), at=path,
                            expected=" or ".join(known[:20]) or "rows with a group")  # fmt: skip
    return [row for row, group in zip(rows, found, strict=True) if group in groups]


def _group(row: dict[str, Any]) -> Any:
    return row.get("group", row.get("dataset"))


def _answers(rows: Sequence[dict[str, Any]], path: Path) -> Answers:
    found: Answers = {}
    times: Counter[str] = Counter()
    for number, row in enumerate(rows, 1):
        at = f"{path}, row {number}"
        if row.get("error"):
            continue
        output = row.get("output")
        if isinstance(output, list) and len(output) == 1:
            output = output[0]
        prompt = _prompt(row, at)
        if "id" in row:
            name = _words(row["id"], "id", at)
        else:  # the same instruction may be there twice
            times[prompt] += 1
            name = sha256(prompt)[:12] + (f"-{times[prompt]}" if times[prompt] > 1 else "")
        if name in found:
            raise DataError("an instance is there twice", got=repr(name)[:60], at=at,
                            expected="each id once")  # fmt: skip
        found[name] = (prompt, _words(output, "output", at))
    return found


def _prompt(row: dict[str, Any], at: str) -> str:
    """What the user asked, without the marks of a chat format."""
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        turns = [one for one in messages if isinstance(one, dict)]
        texts = [_words(one.get("content"), "content", at) for one in turns]
        if len(turns) == 1:
            return texts[0]
        return "\n\n".join(f"{o.get('role')}: {t}" for o, t in zip(turns, texts, strict=True))
    value = row.get("instruction", row.get("prompt"))
    text = _words(value, "prompt", at)
    chat = _CHAT.fullmatch(text)
    return chat[1] if chat and "<|user|>" not in chat[1] else text


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_bytes(path).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError("line is no JSON", got=str(error)[:100], at=f"{path}, line {number}",
                            expected="an object a line in UTF-8")  from error  # fmt: skip
        rows.append(_object(row, f"{path}, line {number}"))
    return rows


def _json_list(path: Path) -> list[dict[str, Any]]:
    try:
        rows = parse_json(_bytes(path))
    except ValueError as error:
        raise DataError("file is no JSON", got=str(error)[:100], at=path) from error
    if not isinstance(rows, list):
        raise DataError("file holds no list", got=f"a JSON {type(rows).__name__}", at=path)
    return [_object(row, f"{path}, entry {number}") for number, row in enumerate(rows, 1)]


def _object(row: Any, at: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError("entry is no object", got=f"a JSON {type(row).__name__}", at=at)
    return row


def _bytes(path: Path) -> bytes:
    try:
        kind = kind_of_file(path)
        if kind is not None:
            raise DataError("file holds no JSON", got=kind, at=path)
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("file is missing", at=path) from None
    except OSError as error:
        raise DataError("file cannot be read", got=error.strerror or error, at=path) from error


def sample(instances: Sequence[Instance], count: int, seed: int) -> list[Instance]:
    """So many of the instances, drawn by a seed, in their order; all where there are fewer.

    Gold instances are kept besides.
    """
    plain = [i for i, one in enumerate(instances) if one.gold is None]
    drawn = set(random.Random(seed).sample(plain, min(count, len(plain))))
    return [one for i, one in enumerate(instances) if one.gold is not None or i in drawn]
