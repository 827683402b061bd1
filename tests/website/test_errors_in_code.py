"""Messages read from the code: every place that makes an error, in its words."""

import re

import pytest

from tulu_jax.cli.main import main
from website import errors, stage
from website.rooms import room_of
from website.source import FOLDERS, ROOT, Source


@pytest.fixture(scope="module")
def source():
    return stage.source()


@pytest.fixture(scope="module")
def sites(source):
    return errors.sites(source)


def test_every_place_that_makes_an_error_is_found(source, sites):
    """Counted by another way than the page's own: lines of text."""
    names = "|".join(errors.kinds(source))
    made = re.compile(rf"(?<![\w.`\"])(?<!class )({names})\((?!TuluError|\w*Error\):)")
    written = set()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name == errors.ERRORS:
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if (
                    made.search(line)
                    and ">>>" not in line
                    and not line.lstrip().startswith("class")
                ):
                    written.add((name, number))
    assert len(written) > 700
    assert written == {(site.path, site.line) for site in sites}


def test_most_messages_have_words(sites):
    """Errors that only hand on another's text are few."""
    empty = [site for site in sites if all(errors.words(text) == 0 for text in site.what)]
    assert len(empty) < len(sites) / 20, [(site.path, site.line) for site in empty]


def test_anchors_differ_on_a_page(sites):
    for by_kind in errors.messages(sites).values():
        anchors = [one.anchor for found in by_kind.values() for one in found]
        assert len(set(anchors)) == len(anchors)


def best(text, sites):
    """The message that the page finds for a pasted text: as website/extra.js scores them."""
    pasted = set(re.findall(r"[a-z0-9_]{2,}", text.lower()))

    def score(message):
        own = re.findall(r"[a-z0-9_]{2,}", errors.BLANK.sub(" ", message).lower())
        there = sum(word in pasted for word in own)
        begins = next(filter(None, map(str.strip, errors.BLANK.split(message))), "").lower()
        at = text.lower().find(begins)
        bonus = 0 if at < 0 else 20 / (20 + at)
        return there / len(own) + min(there, 30) / 100 + bonus if own else 0

    return max({text for site in sites for text in site.what}, key=score)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (
            ["train", "--gin_file=runs/demo.gin", "--gin.MODEL_DIR=x", "--gin.LR=1"],
            "unknown setting",
        ),
        (["train", "--gin_file=runs/demo.gin"], "MODEL_DIR is not set"),
        (["export", "--model_dir", "none", "--output", "x"], None),
        (["data", "inspect", "none.jsonl"], None),
        (["eval", "show", "gsm", "--tokenizer", "none"], None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_message_that_a_user_meets_is_found(words, what, sites, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr().err.split(": ", 1)[1]
    found = best(told, sites)
    assert told.startswith(errors.BLANK.split(found)[0])
    assert what is None or found == what


def test_wordings(tmp_path):
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    (tmp_path / "tasks" / "a.py").write_text(
        "WHAT = 'name is taken'\n"
        "def refuse(what, row):\n"
        "    return DataError(what, got=repr(row.name), at=f'row {row.number}')\n"
        "def check(row, hard):\n"
        "    if row: raise refuse('row is ' + ('long' if hard else 'short'), row)\n"
        "    raise refuse(WHAT, row)\n"
    )
    source = Source(tmp_path)
    ((place, call),) = source.calls["DataError"]
    assert source.texts(call.args[0], place) == ["‹what›"]
    assert source.texts(call.args[0], place, follow=True) == [
        "row is long",
        "row is short",
        "name is taken",
    ]
    assert [source.texts(keyword.value, place) for keyword in call.keywords] == [
        ["‹name›"],
        ["row ‹number›"],
    ]


def test_text_is_shown_as_it_is():
    assert errors.plain("a <b> *c* `d_e`") == r"a &lt;b&gt; \*c\* \`d\_e\`"
    assert room_of("tulu_jax/checkpoint/hf/load.py") == "tulu_jax/checkpoint"
    assert room_of("eval/study/steps.py") == "eval/study"
    assert room_of("tulu_jax/files.py") == "tulu_jax"
