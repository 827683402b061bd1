"""The prompts of `tulu generate`: lines of a file, checked whole before a model is loaded.

A line comes back with its answer, so fields that only name it (`id`, `source` ...) are carried
along. What would have to reach the model and cannot is refused by name, and so is what an answer
would overwrite, and an answer that the model would see.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_jax.errors import DataError
from tulu_jax.files import kind_of, parse_json

if TYPE_CHECKING:
    from tulu_jax.chat import Tokenizer

MEDIA = ("image", "images", "image_url", "audio", "audios", "input_audio", "video", "videos")
NAMED = 12
"""So many fields that the model does not see are named."""
NOT_SEEN = frozenset(
    (*MEDIA, "tools", "functions", "tool_choice", "documents", "system", "system_prompt", "history",
     "chat_template", "suffix", "stop", "stop_sequences")
)  # fmt: skip
"""Fields of a line that say what the model is to see or where it is to stop."""
BY_OPTION = {
    "temperature": "--temperature", "top_p": "--top_p", "top_k": "--top_k", "seed": "--seed",
    "max_tokens": "--max_new_tokens", "max_new_tokens": "--max_new_tokens",
    "max_completion_tokens": "--max_new_tokens",
}  # fmt: skip
"""Fields that are settings of the whole command here."""
NOT_DONE = frozenset(
    ("n", "best_of", "repetition_penalty", "presence_penalty", "frequency_penalty",
     "length_penalty", "no_repeat_ngram_size", "logit_bias", "bad_words", "min_p", "typical_p",
     "min_tokens", "min_new_tokens", "num_beams", "use_beam_search", "ignore_eos",
     "response_format", "logprobs", "top_logprobs")
)  # fmt: skip
"""Fields that are settings of other programs, which `tulu generate` does not have."""
NOT_SEEN_IN_MESSAGE = frozenset((*MEDIA, "tool_calls", "tool_call_id", "function_call"))


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One line: its fields, and where it is."""

    fields: dict[str, Any]
    at: str


def read_prompts(
    path: Path, *, answer_field: str = "output", drop_last_answer: bool = False
) -> list[Prompt]:
    """The prompts of a JSONL file; blank lines and a byte order mark are skipped.

    Args:
      path: the file.
      answer_field: where the answer will be written.
      drop_last_answer: whether a conversation may end with an answer, which is then not shown.

    Raises:
      DataError: the file is unreadable, a line is no JSON object or has no prompt, or it holds what
        cannot reach the model, would be overwritten, or answers itself.
    """
    prompts = [Prompt(fields, at) for fields, at in _objects(path)]
    if not prompts:
        raise DataError("input is empty", at=path, expected="one JSON object a line")
    for prompt in prompts:
        check_prompt(prompt, answer_field=answer_field, drop_last_answer=drop_last_answer)
    return prompts


def _objects(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("input cannot be read", got=error.strerror or error, at=path) from error
    kind = kind_of(data) if data else None
    if kind is not None:
        packed = any(word in kind for word in ("gzip", "zstd", "xz", "bzip2", "zip"))
        raise DataError(
            "input is not text", got=kind, at=path, expected="JSON lines in UTF-8",
            do="unpack it" if packed else None,
        )  # fmt: skip
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        at = f"{path} line {number}"
        try:
            yield parse_json(line, parse_float=_finite), at
        except OverflowError as error:
            raise DataError(
                "line has a number that is too great to be written again", got=error, at=at,
                expected="numbers up to 1.8e308", do="write it as text, or remove the field",
            ) from error  # fmt: skip
        except ValueError as error:
            raise DataError(
                "line is not JSON", got=error, at=at, expected="one JSON object a line",
                do=_one_a_line(line),
            ) from error  # fmt: skip


def _finite(text: str) -> float:
    """The number that `text` is; one that is too great would come back as Infinity."""
    if math.isinf(number := float(text)):
        raise OverflowError(text[:40])
    return number


def _one_a_line(line: bytes) -> str:
    """What to do about a line that is not JSON: it may be text, or of JSON over several lines."""
    start = line.strip()
    if start[:1] not in (b"[", b"{"):
        return 'write each prompt as {"prompt": "..."} in a line of its own'
    if start not in (b"[", b"{", b"[{"):
        return "fix the line"
    return f"write one object a line: jq -c {'.' if start == b'{' else repr('.[]')} OLD > NEW"


def check_prompt(prompt: Prompt, *, answer_field: str, drop_last_answer: bool) -> None:
    """Refuses a line that the model could not be asked as it stands.

    Raises:
      DataError: see `read_prompts`.
    """
    fields, at = prompt.fields, prompt.at
    if not isinstance(fields, dict) or not ({"messages", "prompt"} & set(fields)):
        names = sorted(fields)[:8] if isinstance(fields, dict) else type(fields).__name__
        raise DataError(
            "line holds no prompt", got=names, at=at, expected="a field messages or prompt",
            do="write one object a line: jq -c '.[]' OLD > NEW"
            if isinstance(fields, list)
            else "one JSON object a line; rename the field that holds the question",
        )  # fmt: skip
    if {"messages", "prompt"} <= set(fields):
        raise DataError(
            "line holds both messages and prompt", at=at, expected="one of them",
            do="remove the one that is not meant",
        )  # fmt: skip
    _check_fields(fields, at)
    for name in answer_names(answer_field):
        if name in fields:
            raise DataError(
                f"line has a field {name} of its own, which the answer would overwrite",
                got=json.dumps(fields[name])[:60],
                at=at,
                do="rename it, or name another field for answers: --answer_field NAME",
            )
    if "messages" in fields:
        _check_messages(fields["messages"], at, drop_last_answer)
        return
    if not isinstance(fields["prompt"], str):
        raise DataError("prompt is not text", got=type(fields["prompt"]).__name__, at=at)
    as_messages(prompt)


def answer_names(field: str) -> tuple[str, str, str]:
    """The fields for an answer, the number of its tokens, and what ended it.

    >>> answer_names("output"), answer_names("model_b")
    (('output', 'output_tokens', 'stopped'), ('model_b', 'model_b_tokens', 'model_b_stopped'))
    """
    return field, f"{field}_tokens", "stopped" if field == "output" else f"{field}_stopped"


def _check_fields(fields: dict[str, Any], at: str) -> None:
    said = {name for name, value in fields.items() if value not in (None, "", [], {}, False)}
    unseen = sorted(said & NOT_SEEN)
    if unseen:
        raise DataError(
            f"line has {', '.join(unseen)}, which the model would not see",
            got=json.dumps(fields[unseen[0]])[:80],
            at=at,
            expected="all that it is to see in messages or prompt",
            do="put it into the text or a message of role system, or remove the field",
        )
    foreign = sorted(said & NOT_DONE)
    if foreign:
        raise DataError(
            f"line has {', '.join(foreign)}, which this command does not do",
            got=json.dumps(fields[foreign[0]])[:80],
            at=at,
            expected=f"of settings {', '.join(sorted(set(BY_OPTION.values())))}, as options",
            do="remove the field",
        )
    options = sorted(name for name in BY_OPTION if fields.get(name) is not None)
    if options:
        raise DataError(
            f"line has {', '.join(options)}, which holds for the whole file here",
            got=json.dumps(fields[options[0]])[:80],
            at=at,
            do=f"give it as {BY_OPTION[options[0]]}, and remove the field",
        )


def not_seen(prompts: Sequence[Prompt]) -> list[str]:
    """What of the lines the model does not see and comes back as it is, a line a field.

    Fields that only say where a prompt came from, and flags of training, are not named.
    """
    from tasks.own.fields import FLAGS, METADATA

    known = {"messages", "prompt", "role", "content", *FLAGS, *METADATA, *NOT_SEEN, *NOT_DONE}
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for prompt in prompts:
        parts = [("field", prompt.fields, prompt.at)]
        for index, message in enumerate(prompt.fields.get("messages", ())):
            parts.append(("message field", message, f"{prompt.at}, message {index}"))
        for kind, fields, at in parts:
            for name in fields.keys() - known:
                if fields[name] not in (None, "", [], {}):
                    key = f"{kind} {ascii(name)[:60]}"
                    counts[key] += 1
                    first.setdefault(key, at)
    named = [
        f"{key} is not seen by the model: {count:,} time{'s' * (count > 1)}, first at {first[key]}"
        for key, count in sorted(counts.items())[:NAMED]
    ]
    more = len(counts) - NAMED
    return [*named, f"{more} fields more are not seen by the model"] if more > 0 else named


def _check_messages(messages: Any, at: str, drop_last_answer: bool) -> None:
    from tulu_jax.chat import check_messages

    for index, message in enumerate(messages if isinstance(messages, list) else []):
        said = set(message) if isinstance(message, dict) else set()
        unseen = sorted(name for name in said & NOT_SEEN_IN_MESSAGE if message[name])
        if unseen:
            raise DataError(
                f"message has {', '.join(unseen)}, which the model would not see",
                at=f"{at}, message {index}",
                expected="role and content",
                do="put it into the text, or leave the line out",
            )
    messages = _with_parts_joined(messages, at)
    check_messages(messages, at)
    if messages[-1]["role"] == "system":
        raise DataError(
            "conversation ends with a system message, to which nobody answers",
            at=f"{at}, message {len(messages) - 1}",
            expected="a conversation that ends with the user",
            do="put the question behind it",
        )
    if messages[-1]["role"] != "assistant":
        return
    if not drop_last_answer:
        raise DataError(
            "conversation ends with an answer, which the model would see and go on after",
            got=json.dumps(messages[-1]["content"])[:60],
            at=f"{at}, message {len(messages) - 1}",
            expected="a conversation that ends with the user",
            do="take the answer out, or add --drop_last_answer to ask for it anew",
        )
    if len(messages) == 1:
        raise DataError("conversation is one answer, to nothing", at=at, do="leave the line out")


def as_messages(prompt: Prompt) -> Any:
    """The conversation of a line: its messages, or its prompt as a user's only one.

    Raises:
      DataError: it is none, or has text that UTF-8 cannot hold.
    """
    from tulu_jax.chat import check_messages

    messages = prompt.fields.get("messages")
    if messages is None:
        messages = [{"role": "user", "content": prompt.fields["prompt"]}]
    messages = _with_parts_joined(messages, prompt.at)
    check_messages(messages, prompt.at)
    return messages


def _with_parts_joined(messages: Any, at: str) -> Any:
    """The messages, each with its content as one text; what is no list of messages as it is."""
    from tulu_jax.chat.messages import text_of_parts

    if not isinstance(messages, list):
        return messages
    return [
        {**message, "content": text_of_parts(message["content"], f"{at}, message {index}")}
        if isinstance(message, dict) and message.get("content") and type(message["content"]) is list
        else message
        for index, message in enumerate(messages)
    ]


def prompt_tokens(prompt: Prompt, tokenizer: Tokenizer, *, raw: bool) -> tuple[Any, bool]:
    """The ids that the model reads, and whether a last answer was taken off.

    Raises:
      DataError: messages with `raw`, or text that UTF-8 cannot hold.
    """
    from tulu_jax.chat import encode_prompt

    if raw and "messages" in prompt.fields:
        raise DataError(
            "line has messages, which --raw does not take", at=prompt.at,
            expected="a field prompt with the text to go on from", do="leave out --raw",
        )  # fmt: skip
    messages = as_messages(prompt)
    if raw:
        return [*tokenizer.start_ids, *tokenizer.encode_text(prompt.fields["prompt"])], False
    answered = messages[-1]["role"] == "assistant"
    asked = messages[:-1] if answered else messages
    return encode_prompt(asked, tokenizer, at=prompt.at), answered
