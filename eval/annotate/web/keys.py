"""The keys of an annotator's page: one for each answer, as each annotator likes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from eval.annotate.store.accounts import User
from tulu_jax.errors import ConfigError


class Action(NamedTuple):
    """What a key does, and which one it is by default."""

    key: str
    words: str


ACTIONS = {
    "a_yes": Action("q", "A is acceptable"),
    "a_no": Action("w", "A is not acceptable"),
    "b_yes": Action("o", "B is acceptable"),
    "b_no": Action("p", "B is not acceptable"),
    "prefer_1": Action("1", "A is better"),
    "prefer_2": Action("2", "A is slightly better"),
    "prefer_3": Action("3", "Tie"),
    "prefer_4": Action("4", "B is slightly better"),
    "prefer_5": Action("5", "B is better"),
    "good": Action("g", "A good instance"),
    "bad": Action("b", "A bad instance"),
    "hard": Action("h", "A hard instance"),
    "comment": Action("c", "Write a comment"),
    "later": Action("l", "Leave for later"),
    "back": Action(",", "Back"),
    "forward": Action(".", "Forward"),
    "pause": Action("z", "Pause"),
    "plain": Action("m", "Markdown or plain text"),
    "scroll": Action("y", "Scroll both together"),
}


def keys_of(user: User) -> dict[str, str]:
    """The keys that a user has chosen, by action."""
    chosen = user.settings.get("keys", {})
    return {name: chosen.get(name, action.key) for name, action in ACTIONS.items()}


def read_keys(form: Mapping[str, str]) -> dict[str, str]:
    """The keys that a form chooses; an empty field takes the default.

    Raises: ConfigError where a key is no one character, or does two things.
    """
    keys: dict[str, str] = {}
    for name, action in ACTIONS.items():
        key = form.get(f"key_{name}", "").strip().lower() or action.key
        if len(key) != 1 or not key.isprintable():
            raise ConfigError("key is not one character", got=repr(key)[:40], at=action.words)
        if key in keys.values():
            raise ConfigError("one key would do two things", got=repr(key), at=action.words)
        keys[name] = key
    return keys
