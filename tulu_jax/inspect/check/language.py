"""In which language a conversation is."""

from __future__ import annotations

import re
from typing import Any

from tulu_jax.errors import ConfigError
from tulu_jax.inspect.check.temporary import temporary_files

MIN_LETTERS = 60
"""Fewer letters than this say too little about the language."""

SURE = 0.99
"""How probable a language has to be to be named."""

READ = 600
"""Characters that are looked at."""

UNKNOWN = "?"
"""Stands for the language of a text that is too short, or code, or of no one language."""

_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|<[^<>\n]{1,200}>|[\d_]+", re.DOTALL
)
_CODE = re.compile(r"[{}();=<>\[\]\\/$#|]")


def missing_extra(package: str) -> ConfigError:
    """The error for a package of the extra `check` that is not installed."""
    return ConfigError(
        "`tulu data check` needs a package that is not installed",
        got=f"no {package}",
        do="pip install 'tulu-jax[check]'",
    )


class LanguageFinder:
    """Names languages; holds the model of the identifier, which is part of its package."""

    def __init__(self) -> None:
        """Loads the model.

        Raises: ConfigError when py3langid is not installed.
        """
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise missing_extra("py3langid") from error
        with temporary_files():
            self._identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def __call__(self, texts: list[str]) -> str:
        """The ISO 639-1 code of the language the texts are in, or `?` where that is not certain.

        Code, addresses and markup are left out first; of the rest, 600 characters are read.
        """
        prose = _NOT_PROSE.sub(" ", "\n".join(text[:READ] for text in texts)[: 2 * READ])[:READ]
        letters = sum(map(str.isalpha, prose))
        if letters < MIN_LETTERS or len(_CODE.findall(prose)) > letters / 12:
            return UNKNOWN
        language, probability = self._identifier.classify(prose)
        return language if probability >= SURE else UNKNOWN
