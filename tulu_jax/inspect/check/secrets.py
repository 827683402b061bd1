"""Personal data and credentials in a text, by kind; what is found is only ever shown masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Secret(NamedTuple):
    """One find: its kind, and the text with all but its first two characters left out."""

    kind: str
    masked: str


class _Kind(NamedTuple):
    name: str
    hint: str
    """A text without this needs no search for it."""
    pattern: re.Pattern[str]
    is_real: Callable[[re.Match[str]], bool]


def mask(secret: str) -> str:
    """What may be shown of a secret: two characters and its length.

    >>> mask("jane@corp.org")
    'ja… (13 characters)'
    """
    return f"{secret[:2]}… ({len(secret)} characters)"


def find_secrets(text: str) -> Iterator[Secret]:
    """Each secret of a text once.

    Placeholders are left out: addresses at example.com and the like, telephone numbers with the
    fictitious exchange 555, card numbers with a wrong check digit, keys of one repeated letter.
    """
    has_digits = any(map(text.__contains__, "0123456789"))
    for kind in _KINDS:
        if kind.hint not in text or (kind.hint == "" and not has_digits):
            continue
        found = {m[0] for m in kind.pattern.finditer(text) if kind.is_real(m)}
        yield from (Secret(kind.name, mask(secret)) for secret in sorted(found))


_PLACEHOLDERS = re.compile(
    r"@(?:[\w-]+\.)*(?:example|sample|test|domain|yourdomain|mydomain|company|yourcompany|email|"
    r"mail|abc|xyz|foo|bar|acme|localhost|website|yourwebsite|server|host)\.\w+$|"
    r"\.(?:example|test|invalid|local|localhost)$|"
    r"^(?:user|username|name|your|someone|email|me|you|no-?reply|johndoe|john\.doe|janedoe|"
    r"jane\.doe|john|jane|test|example|info|git|admin)\w*@|@\dx|\.(?:png|jpg|jpeg|gif|svg|js|css)$",
    re.IGNORECASE,
)


def _real_address(found: re.Match[str]) -> bool:
    return not _PLACEHOLDERS.search(found[0])


def _real_phone(found: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", found[0])
    national = digits[-10:]
    return (
        "555" not in (national[:3], national[3:6])
        and len(set(digits)) > 3
        and "1234567" not in digits
        and not national.startswith("123")
    )


def _real_card(found: re.Match[str]) -> bool:
    """Passes the check digit (Luhn) and is no well-known test number."""
    digits = [int(c) for c in found[0] if c.isdigit()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    valid = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return valid and len(set(digits)) > 4 and "".join(map(str, digits)) not in _TEST_CARDS


_TEST_CARDS = {"4111111111111111", "4242424242424242", "5555555555554444", "378282246310005",
               "6011111111111117", "4012888888881881", "5105105105105100"}  # fmt: skip


def _real_ssn(found: re.Match[str]) -> bool:
    """In a range that is given out, and not one of the numbers of advertisements."""
    area, group, serial = found[0].split("-")
    return (
        area not in ("000", "666", "123") and area < "900" and group != "00" and serial != "0000"
        and found[0] not in ("078-05-1120", "219-09-9999")
    )  # fmt: skip


def _real_key(found: re.Match[str]) -> bool:
    body = found[0].lower()
    return len(set(body[4:])) > 8 and not re.search(r"x{6}|example|your|placeholder|123456", body)


def _always(found: re.Match[str]) -> bool:
    return True


def _kind(name: str, hint: str, pattern: str, is_real: Callable = _always) -> _Kind:
    return _Kind(name, hint, re.compile(pattern), is_real)


_KINDS = (
    _kind("e-mail", "@",
          r"(?<![\w.+-])\w[\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,10}\b",
          _real_address),
    _kind("telephone", "",
          r"(?<![\w.+/=-])(?:\+\d{1,3}[ .-]?)?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-.]\d{4}(?![\w-])"
          r"|(?<![\w.+-])\+\d{1,3}(?:[ .-]?\d{2,4}){3,4}(?![\w.-]*\d)", _real_phone),
    _kind("card number", "",
          r"(?<![\w.-])(?:\d{4}[ -]){3}\d{4}(?![\w-])|(?<![\w.-])\d{15,16}(?![\w-])",
          _real_card),
    _kind("social security number", "-", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])", _real_ssn),
    _kind("private key", "PRIVATE KEY-----",
          r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64,}"),
    _kind("access key", "AKIA", r"\bAKIA[A-Z0-9]{16}\b", _real_key),
    _kind("access key", "sk-", r"(?<![\w-])sk-(?:[a-z]+-)?[A-Za-z0-9_-]{32,}\b", _real_key),
    _kind("access key", "_",
          r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}|hf_[A-Za-z0-9]{30,})\b", _real_key),
    _kind("access key", "AIza", r"\bAIza[\w-]{35}(?![\w-])", _real_key),
    _kind("access key", "xox", r"\bxox[abprs]-[A-Za-z0-9-]{20,}\b", _real_key),
    _kind("access key", "eyJ", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}", _real_key),
)  # fmt: skip
KINDS = tuple(dict.fromkeys(kind.name for kind in _KINDS))
"""The kinds of secrets that are looked for."""
