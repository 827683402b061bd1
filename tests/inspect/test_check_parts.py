"""Each thing that `tulu data check` looks for: what must be found, and what must not."""

import sys

import numpy as np
import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.inspect.check import text
from tulu_jax.inspect.check.answers import CUT, EMPTY, OPEN_FENCE, answer_faults
from tulu_jax.inspect.check.duplicates import Signer, clusters, copies, near_pairs, normalised
from tulu_jax.inspect.check.language import LanguageFinder
from tulu_jax.inspect.check.secrets import find_secrets
from tulu_jax.inspect.check.text import ngram_hashes, word_hashes, words

STORY = (
    "Once upon a time a small grey cat lived near the old harbour and watched the boats come in "
    "every evening. The fishermen knew her well, and each of them kept one fish aside, so that "
    "she never had to steal. When the winter came she slept in the lighthouse, beside the stove."
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("has_close_elements(a, b) -> bool", "has close elements a b bool"),
        ("Ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("naïve Straße 😀 x²", "naïve strasse x2"),
        ("আমার সোনার বাংলা।", "আমার সোনার বাংলা"),
        ("한국어 문장입니다.", "한국어 문장입니다"),
        ("", ""),
        ("!?", ""),
    ],
)
def test_words(given, expected):
    assert " ".join(words(given)) == expected


def test_word_hashes_forget_and_stay_the_same(monkeypatch):
    monkeypatch.setattr(text, "_KNOWN_WORDS", 2)
    many = ["a", "b", "c", "d", "a"]
    assert len(set(word_hashes(many).tolist())) == 4
    assert word_hashes(many).tolist() == word_hashes(many).tolist()
    assert len(ngram_hashes(word_hashes(many), 6)) == 0


@pytest.mark.parametrize("answer", ["", "  \n", "\u200b\n"[1:]])
def test_empty_answers(answer):
    assert answer_faults(answer) == [EMPTY]


@pytest.mark.parametrize(
    "answer",
    [
        "The three largest cities of the country are Paris, Lyon and",
        "You should add the eggs, the milk, the",
        "Here is what I would say to a friend (",
        STORY + " " + STORY + " " + STORY + " In the spring the boats went out again with new",
        f"{STORY} {STORY} Nobody could say where she would",
    ],
)
def test_cut_answers(answer):
    assert answer_faults(answer) == [CUT]


@pytest.mark.parametrize(
    "answer",
    [
        "Paris",
        "Yes",
        "a",
        "to treat everyone as best as he can",
        "There are 33 grams of sugar in a small can",
        "A sentence without a full stop that is otherwise complete",
        "1. Wash the apples\n2. Cut them into the smallest pieces that you possibly can and",
        "- apples\n- pears and plums from the garden of the",
        "He asked: “Where did you go with the?”",
        "That is all (see the note above, and the references to it)",
        "It ends in *emphasis and that is quite all right here*",
        "for (i = 0; i < n; i++) { total += a[i]; } return total; and",
        "SELECT name FROM users WHERE id IN (SELECT id FROM a);",
        "これは完全な文です。",
        STORY,
        f"{STORY} It was a good place to sleep for a while",
    ],
)
def test_whole_answers(answer):
    assert answer_faults(answer) == []


@pytest.mark.parametrize(
    "answer",
    [
        "Use this:\n```python\nprint(1)",
        "```\na\n```\nand\n```js\nb()",
        "~~~\n```\ntext",
        "````md\n```\ninner\n```\n",
    ],
)
def test_open_code_blocks(answer):
    assert answer_faults(answer) == [OPEN_FENCE]


@pytest.mark.parametrize(
    "answer",
    [
        "```python\nprint(1)\n```",
        "````md\n```\ninner\n```\n````",
        "Write ``` in the middle of a line to quote it.",
        "```inline```",
        "~~~\na\n~~~~",
    ],
)
def test_closed_code_blocks(answer):
    assert answer_faults(answer) == []


KEY = "Q7rT2mZx9Lp4Vb8Nc6Kd3Hs1Jf5Gw0Ye"
SECRETS = {
    "e-mail": "Write to maria.lopez@uni-hamburg.de today",
    "telephone": "Call (206) 321-7788 or",
    "card number": "It is 4539 1488 0343 6467, valid",
    "social security number": "SSN 536-22-8764.",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\n" + KEY * 3 + "\n",
    "access key": f"export OPENAI=sk-{KEY}{KEY}",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_found_and_masked(kind):
    (found,) = find_secrets(SECRETS[kind])
    assert found.kind == kind
    shown = found.masked.split("…")[0]
    assert len(shown) == 2 and shown in SECRETS[kind]
    assert f"{len(found.masked)}" and not any(
        part in found.masked for part in ("lopez", "7788", "6467", "8764", KEY)
    )


@pytest.mark.parametrize(
    "key",
    [
        "AKIA" + "Q7RT2MZX9LP4VB8N",
        "ghp_" + KEY + "aB3dE",
        "hf_" + KEY,
        "AIza" + KEY + "aB3",
        "xoxb-" + KEY,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJxd2VydHkifQ.Q7rT2mZx9Lp4Vb8Nc6Kd3Hs1Jf5",
        "+49 170 4839 2275",
    ],
)
def test_other_secrets(key):
    assert len(list(find_secrets(f"use {key} now"))) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "user@example.com, jane.doe@corp.org, noreply@github.io, a@b, @username, x @ y.com",
        "john@gmail.test and me@localhost.local and icon@2x.png",
        "call 555-1234, (212) 555-0187 or 123-456-7890",
        "the range 1990-2000, 3.141592653589793, 192.168.001.100, ISBN 978-3-16-148410-0",
        "4111 1111 1111 1111 and 4539 1488 0343 6468 and 1234567812345678",
        "000-12-3456, 123-45-6789, 900-11-2222, 2021-11-30",
        "sk-your-key-here, sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx, AKIAIOSFODNN7EXAMPLE",
        "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "total 12 345 678 901 234 567 bytes, id 20230607123456789012",
    ],
)
def test_what_is_no_secret(harmless):
    assert list(find_secrets(harmless)) == []


@pytest.fixture(scope="module")
def language():
    return LanguageFinder()


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("en", [STORY]),
        ("de", ["Die Fischer kannten die kleine Katze gut und legten ihr jeden Abend einen Fisch "
                "zur Seite, damit sie nie stehlen musste."]),
        ("ko", ["전자 통신 공학 석사 졸업생이고 취업하려고 합니다. 어떤 분야를 추천해주시겠어요? "
                "통신 네트워크와 무선 통신 분야가 있습니다. 둘 다 좋은 선택입니다."]),
        ("?", ["Hola, ¿qué tal?"]),
        ("?", ["Sort", "def f(a):\n    return [x for x in sorted(a, key=lambda y: (y[0], -y[1]))]\n"
               "print(f([(1, 2), (3, 4)]))"]),
        ("?", ["1 2 3 4 5 " * 40]),
    ],
)  # fmt: skip
def test_languages(language, expected, given):
    assert language(given) == expected


def test_code_blocks_say_nothing_about_language(language):
    assert (
        language([STORY, "```\n" + "la casa es muy grande y bonita para todos " * 9 + "\n```"])
        == "en"
    )


def sign(sign_text, text):
    return sign_text(word_hashes(words(text)))


def test_near_pairs_at_the_threshold():
    signer = Signer()
    changed = STORY.replace("grey", "black")
    texts = [STORY, changed, STORY[: len(STORY) // 2], STORY.replace(" ", "  ").upper()]
    signatures = np.stack([sign(signer, one) for one in texts])
    pairs = near_pairs(signatures, np.arange(4), threshold=0.8)
    assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == {
        (0, 1), (0, 3), (1, 3)}  # fmt: skip
    assert clusters(pairs, 4).tolist() == [0, 0, 2, 0]
    strict = near_pairs(signatures, np.arange(4), threshold=1.0)
    assert (strict.first.tolist(), strict.second.tolist()) == ([0], [3])
    assert len(near_pairs(signatures, np.array([1, 2]), threshold=0.8).first) == 0
    assert sign(signer, "only four words here") is None


def test_signatures_do_not_depend_on_the_batch(monkeypatch):
    signer = Signer()
    whole = sign(signer, STORY)
    monkeypatch.setattr("tulu_jax.inspect.check.duplicates._AT_ONCE", 7)
    np.testing.assert_array_equal(sign(signer, STORY), whole)


def test_similarity_is_near_the_true_one():
    """Texts that share two thirds of their shingles: a Jaccard similarity of one half."""
    signer = Signer()
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(30):
        a, b, c = (rng.integers(1 << 63, size=100, dtype=np.uint64) for _ in range(3))
        one, two = signer(np.concatenate([a, b])), signer(np.concatenate([a, c]))
        errors.append((one == two).mean() - 96 / (96 + 2 * 100))
    assert abs(np.mean(errors)) < 0.03 and np.abs(errors).max() < 0.2


def test_exact_copies_differ_by_more_than_case_and_space():
    assert normalised("A  b\n") == normalised("a B") != normalised("a, b")
    assert copies(np.empty(0, np.uint64)).tolist() == []


@pytest.mark.parametrize(
    ("package", "make"), [("datasketch", Signer), ("py3langid.langid", LanguageFinder)]
)
def test_missing_packages_are_named(monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"no \w+ - pip install 'tulu-jax\[check\]'"):
        make()
