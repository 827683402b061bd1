"""Fields of requests that take several forms, each read by one function with one clear error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tulu_jax.chat.messages import text_of_parts
from tulu_jax.errors import DataError
from tulu_jax.generate.requests import MAX_STOP_STRINGS

LARGEST_ID = 2**31 - 1


def _wrong(text: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", text)  # type: ignore[arg-type]


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_ID


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _wrong("text is not valid Unicode: it has half of a surrogate pair") from error


def read_prompts(value: Any) -> list[Any]:
    """A list of prompts, each a text or a list of token ids.

    Raises:
      PydanticCustomError: neither a text, nor ids, nor a list of one of both.
    """
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise _wrong("prompt is neither text nor a list")
    if not value:
        raise _wrong("prompt list is empty")
    if all(isinstance(one, str) for one in value):
        for one in value:
            _check_text(one)
    elif all(map(_is_id, value)):
        return [value]
    elif not all(isinstance(one, list) and all(map(_is_id, one)) for one in value):
        raise _wrong(
            "prompt is neither a text, a list of texts, a list of token ids nor a list of such"
        )
    if not all(value):
        raise _wrong("prompt is empty; to begin with nothing, send the id of BOS")
    return value


def read_stops(value: Any) -> list[str]:
    """Stop strings, from one text or a list of them.

    Raises:
      PydanticCustomError: another type, an empty text, or too many.
    """
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not (isinstance(stops, list) and all(isinstance(one, str) for one in stops)):
        raise _wrong("stop is neither text nor a list of texts")
    if len(stops) > MAX_STOP_STRINGS:
        raise _wrong(f"too many stop strings: {len(stops)}, of at most {MAX_STOP_STRINGS}")
    for one in stops:
        if not one:
            raise _wrong("a stop string is empty")
        _check_text(one)
    return stops


def read_biases(value: Any) -> dict[int, float]:
    """What is added to the logits of tokens, by id.

    Raises:
      PydanticCustomError: a key is no token id, or a value no number from -100 to 100.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong("logit_bias is no object of token ids and numbers")
    found = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 11 and int(key) <= LARGEST_ID):
            raise _wrong("logit_bias has a key that is no token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise _wrong("logit_bias has a value that is no number from -100 to 100")
        found[int(key)] = float(bias)
    return found


def read_content(value: Any) -> str:
    """The text of a message, whose parts of text are joined.

    Raises:
      PydanticCustomError: there are parts that are no text.
    """
    if isinstance(value, str):
        _check_text(value)
        return value
    if not isinstance(value, list):
        raise _wrong("message content is neither text nor a list of parts of text")
    try:
        text = text_of_parts(value, "content", do="send its text alone")
    except DataError as error:
        raise _wrong(str(error)) from error
    _check_text(text)
    return text


def read_text(value: Any) -> str:
    """A text that UTF-8 can hold.

    Raises:
      PydanticCustomError: it is none.
    """
    if not isinstance(value, str):
        raise _wrong("not a text")
    _check_text(value)
    return value


def read_ids(value: Any) -> list[int]:
    """Token ids.

    Raises:
      PydanticCustomError: it is no list of such.
    """
    if not (isinstance(value, list) and all(map(_is_id, value))):
        raise _wrong("not a list of token ids")
    return value


class Only:
    """Marks a field of OpenAI's interface that is taken at these values only, or as null.

    What it would do elsewhere is not done here; so a client that sends it at its default is served.
    """

    def __init__(self, *values: Any) -> None:
        """The values."""
        self._values = (*values, None)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"enum": list(self._values)}

    def _check(self, value: Any) -> Any:
        if not any(type(value) is type(one) and value == one for one in self._values):
            raise _wrong("this is not supported here")
        return value


_ID: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": LARGEST_ID}
_IDS: dict[str, Any] = {"type": "array", "items": _ID}
_PROMPT: dict[str, Any] = {**_IDS, "minItems": 1}
_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
_STOPS: dict[str, Any] = {
    "type": "array",
    "items": _TEXT,
    "maxItems": MAX_STOP_STRINGS,
}
_PARTS: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
        "additionalProperties": False,
    },
}
_PROMPTS: dict[str, Any] = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        _PROMPT,
        {"type": "array", "items": _PROMPT, "minItems": 1},
    ]
}
_BIASES: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"pattern": "^[0-9]{1,9}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
_NONE = {"type": "null"}

Prompts = Annotated[list[Any], PlainValidator(read_prompts), WithJsonSchema(_PROMPTS)]
Stops = Annotated[
    list[str], PlainValidator(read_stops), WithJsonSchema({"anyOf": [_TEXT, _STOPS, _NONE]})
]
Biases = Annotated[
    dict[int, float], PlainValidator(read_biases), WithJsonSchema({"anyOf": [_BIASES, _NONE]})
]
Content = Annotated[
    str,
    PlainValidator(read_content),
    WithJsonSchema({"anyOf": [{"type": "string"}, _PARTS]}),
]
Text = Annotated[str, PlainValidator(read_text), WithJsonSchema({"type": "string"})]
Ids = Annotated[list[int], PlainValidator(read_ids), WithJsonSchema(_IDS)]
