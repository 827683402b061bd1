"""Which of the conversations found by a check are listed to be left out, and with which reason."""

import pytest

from tests.inspect import eval_sets
from tests.inspect.test_check_parts import STORY
from tests.inspect.test_check_run import clean, conversation, planted, texts
from tulu_jax.errors import ConfigError
from tulu_jax.inspect.check.benchmarks import BenchmarkItem
from tulu_jax.inspect.check.marks import excluded_kinds
from tulu_jax.inspect.check.options import KINDS, CheckOptions
from tulu_jax.inspect.check.run import check_mixture
from tulu_jax.inspect.check.show import report_sections, report_tables

DEFAULT = "contaminated,duplicate,broken"


def listed(datasets, kinds=DEFAULT, items=(), **options):
    options = CheckOptions(exclude=excluded_kinds(kinds), **options)
    if not isinstance(datasets, dict):
        datasets = {"tulu_a": datasets}
    return check_mixture("x", datasets, options=options, items=items)


@pytest.fixture(scope="module")
def items():
    return [BenchmarkItem("gsm", "3", eval_sets.GSM, "47")]


def test_the_default_kinds(items):
    report = listed([*clean(), *planted()], items=items)
    assert [tuple(one) for one in report.listed] == [
        ("tulu_a", "a_copy", "duplicate", "copy of a_0"),
        ("tulu_a", "a_near", "duplicate", report.listed[1].detail),
        ("tulu_a", "a_empty", "broken", "empty answers: message 2 of 2"),
        ("tulu_a", "a_cut", "broken", "cut answers: message 2 of 2"),
        ("tulu_a", "a_fence", "broken", "open code blocks: message 2 of 2"),
        ("tulu_a", "a_seen", "contaminated", "100% of gsm item 3"),
    ]
    assert report.listed[1].detail.endswith("like a_story")
    assert report.excluded("tulu_a") == {"broken": 3, "contaminated": 1, "duplicate": 2}
    assert report.as_json()["datasets"]["tulu_a"]["excluded"] == report.excluded("tulu_a")


def test_nothing_is_listed_unless_asked():
    assert check_mixture("x", {"tulu_a": planted()}).listed == []


def test_every_kind_can_be_chosen():
    kinds = "duplicate_prompts,other_language,length_outliers,secrets"
    report = listed([*clean(), *planted()], kinds)
    assert {(one.id, one.reason) for one in report.listed} == {
        ("a_copy", "duplicate_prompts"),
        ("a_prompt", "duplicate_prompts"),
        ("a_near", "duplicate_prompts"),
        ("a_german", "other_language"),
        ("a_long", "length_outliers"),
        ("a_mail", "secrets"),
    }
    details = {one.id: one.detail for one in report.listed}
    assert details["a_prompt"] == "prompt of a_0" and details["a_german"] == "other language: de"
    assert "lopez" not in str(report.listed)


def test_as_many_as_there_are_are_listed_not_only_those_shown():
    data = [conversation(i, "Tell me a story.", STORY) for i in range(20)]
    report = listed(data, worst=2)
    assert len(report.datasets["tulu_a"].findings["exact_duplicates"].examples) == 2
    assert [one.id for one in report.listed] == [f"a_{i}" for i in range(1, 20)]
    assert {one.detail for one in report.listed} == {"copy of a_0"}


def test_of_copies_the_first_that_is_not_broken_stays():
    cut = STORY[: STORY.index(" the ") + 4]
    near = STORY.replace("grey", "black")
    data = [
        conversation("cut", "Tell me a story.", f"{STORY} And then the"),
        conversation("whole", "Tell me a story.", STORY),
        conversation("near", "Tell me a story.", near),
        conversation("copy", "Tell me a story.", STORY),
        conversation("short", "Tell me another.", f"{cut[:60]} and the"),
    ]
    found = {one.id: (one.reason, one.detail) for one in listed(data).listed}
    assert found.keys() == {"a_cut", "a_near", "a_copy", "a_short"}
    assert found["a_copy"] == ("duplicate", "copy of a_whole")
    assert found["a_near"][1].endswith("like a_whole")
    reason, detail = found["a_cut"]
    assert reason == "duplicate" and "like a_whole; cut answers: message 2 of 2" in detail
    every = listed(data[:1] * 2)
    assert [one.reason for one in every.listed] == ["broken", "broken"], "none of them is whole"


def test_copies_of_another_dataset_name_it():
    one = next(clean())
    other = conversation("copy", *texts(one), name="b")
    report = listed({"tulu_a": [one], "tulu_b": [other]})
    assert report.listed == [("tulu_b", "b_copy", "duplicate", "copy of a_0 of tulu_a")]


def test_exact_copies_alone(items):
    report = listed([*clean(), *planted()], "exact_duplicates", items=items)
    assert [one.id for one in report.listed] == ["a_copy"]
    report = listed([*clean(), *planted()], "near_duplicates")
    assert [one.id for one in report.listed] == ["a_near"]


def test_an_item_seen_most_comes_first(items):
    items = [BenchmarkItem("b", "half", f"{eval_sets.GSM} {' '.join('abcdefgh')}", ""), *items]
    (one,) = listed([conversation(0, eval_sets.GSM, "47")], items=items).listed
    assert one.detail == "100% of gsm item 3 and 1 more"


def test_kinds_by_group_and_name():
    assert excluded_kinds("broken, secrets") == ("empty_answers", "cut_answers",
                                                "open_code_blocks", "secrets")  # fmt: skip
    assert excluded_kinds(",".join(KINDS)) == tuple(KINDS)
    with pytest.raises(ConfigError, match=r"not a kind of finding that can be excluded - got 'du"):
        excluded_kinds("broken,dupes")
    with pytest.raises(ConfigError, match=r"no kind of finding is excluded - got ','"):
        excluded_kinds(",")


def test_ids_never_reach_the_terminal_as_they_are():
    from rich.console import Console

    ids = ["a\x1b[31mx\ny", "x" * 500]
    data = [
        {**conversation(i, "Tell me a story.", STORY), "id": name} for i, name in enumerate(ids)
    ]
    report = listed(data)
    assert report.listed[0].id == ids[1]
    console = Console(width=100, record=True, force_terminal=False)
    for table in report_tables(report):
        console.print(table)
    text = console.export_text()
    assert "\x1b" not in text and "copy of a␛[31mx␊y" in text and text.count("x" * 37) == 0
    sections = report_sections(report)
    (table,) = next(s for s in sections if s["title"] == "Excluded")["blocks"]
    assert table["rows"] == [["a", "duplicate", 1]]
