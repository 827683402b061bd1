"""A whole check: planted faults are counted under the right dataset, and nothing else is."""

import json
import sys

import pytest

from tests.inspect import eval_sets
from tests.inspect.test_check_parts import KEY, STORY
from tulu_jax.cli.data.benchmarks import read_eval_data
from tulu_jax.errors import ConfigError
from tulu_jax.inspect.check.benchmarks import BenchmarkItem
from tulu_jax.inspect.check.collect import limits_exceeded
from tulu_jax.inspect.check.options import CheckOptions, parse_limit
from tulu_jax.inspect.check.run import check_mixture
from tulu_jax.inspect.check.show import report_sections, report_tables

TOPICS = ["bread", "cheese", "rivers", "mountains", "pianos", "bicycles", "volcanoes", "gardens",
          "islands", "poems", "clocks", "bridges", "whales", "tulips", "deserts", "glaciers",
          "violins", "kitchens", "castles", "meadows"]  # fmt: skip
TIMES = ["spring", "summer", "autumn", "winter"]


def conversation(number, prompt, *answers, name="a"):
    messages = []
    for answer in answers:
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"dataset": name, "id": f"{name}_{number}", "messages": messages}


def clean(count=80, name="a"):
    """Conversations in which there is nothing to find."""
    for i in range(count):
        topic, time, other = TOPICS[i % 20], TIMES[i // 20], TOPICS[(7 * i + 3) % 20]
        prompt = f"As {name}, tell me what {topic} have to do with {time} and why {other} matter."
        answer = f"In {time} people of {name} think of {topic}, because {other} remind them of it."
        yield conversation(i, prompt, answer, name=name)


def planted():
    """One conversation for each kind of finding; its id says which."""
    first = next(clean())["messages"]
    prompt, answer = first[0]["content"], first[1]["content"]
    other = "Nobody knows for sure, but there are several good explanations for it in books."
    return [
        conversation("copy", f"{prompt.upper()}\n", answer),
        conversation("prompt", prompt, other),
        conversation("story", "Tell me a story.", STORY),
        conversation("near", "Tell me a story.", STORY.replace("grey", "black")),
        conversation("empty", "What is the opposite of nothing at all?", " "),
        conversation("cut", "List all of the colours.", "The colours are red, green, blue and"),
        conversation("fence", "Show me the code for it.", "Here:\n```\nprint(1)"),
        conversation("german", "Übersetze den Satz, bitte, und erkläre die Grammatik dazu.",
                     "Die Katze schläft am liebsten neben dem warmen Ofen in der Küche."),
        conversation("long", "Repeat the word many times over.", "again and " * 400 + "again."),
        conversation("mail", "How can I reach her tomorrow?", "Write to m.lopez@uni-hamburg.de."),
        conversation("markers", "[INST] What keeps a kite in the air? [/INST]", "The wind does."),
        conversation("seen", eval_sets.GSM, "She has 47 apples left over."),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return read_eval_data(eval_sets.write_eval_data(tmp_path_factory.mktemp("eval")))


@pytest.fixture(scope="module")
def report(items):
    datasets = {"tulu_a": [*clean(), *planted()], "tulu_b": list(clean(name="b"))}
    datasets["tulu_b"].append(conversation("copy", *texts(datasets["tulu_a"][5]), name="b"))
    done = []
    result = check_mixture(
        "tulu_a,tulu_b", datasets, items=items, progress=lambda *a: done.append(a)
    )
    assert done == [("tulu_a", 92), ("tulu_b", 81)]
    return result


def texts(one):
    return [message["content"] for message in one["messages"]]


def test_each_fault_is_found_once_and_where_it_is(report):
    found = report.datasets["tulu_a"].findings
    ids = {kind: [example.id for example in one.examples] for kind, one in found.items()}
    assert ids == {
        "exact_duplicates": ["a_copy"],
        "duplicate_prompts": ["a_copy", "a_prompt", "a_near"],
        "near_duplicates": ["a_near"],
        "empty_answers": ["a_empty"],
        "cut_answers": ["a_cut"],
        "open_code_blocks": ["a_fence"],
        "chat_markers": ["a_markers"],
        "other_language": ["a_german"],
        "length_outliers": ["a_long"],
        "secrets": ["a_mail"],
    }
    assert all(one.conversations == len(one.examples) for one in found.values())
    assert found["exact_duplicates"].examples[0].detail == "copy of a_0"
    assert found["near_duplicates"].examples[0].detail.endswith("like a_story")
    assert found["secrets"].examples[0].detail == "e-mail: m.… (22 characters)"
    assert found["other_language"].examples[0].detail == "de"
    assert found["length_outliers"].examples[0].detail.startswith("answers of 801 words, median 1")


def test_copies_of_another_dataset_count_under_the_later_one(report):
    found = report.datasets["tulu_b"].findings
    assert set(found) == {"exact_duplicates", "duplicate_prompts"}
    assert found["exact_duplicates"].elsewhere == 1
    assert found["exact_duplicates"].examples[0].detail == "copy of a_5"
    assert report.datasets["tulu_a"].findings["exact_duplicates"].elsewhere == 0


def test_overlap_by_dataset_and_benchmark(report):
    first, *rest = report.overlap
    assert (first.dataset, first.benchmark, first.items_seen, first.with_answer) == (
        "tulu_a", "gsm", 1, 1)  # fmt: skip
    assert first.worst[0].conversation == "a_seen" and first.worst[0].prompt == eval_sets.GSM[:100]
    assert first.conversations == 1 and first.share == 1.0
    assert not any(one.items_seen or one.conversations for one in rest)
    assert len(report.overlap) == 2 * len(report.benchmarks)


def test_an_item_that_two_datasets_have_counts_once():
    items = [
        BenchmarkItem("b", str(i), f"{STORY} {i}" if i == 0 else TOPICS[i] * 9, "") for i in (0, 1)
    ]
    items.append(BenchmarkItem("b", "2", " ".join(TOPICS), ""))
    datasets = {
        "x": [conversation(0, STORY, "Thank you.", name="x")],
        "y": [conversation(0, STORY, " ".join(TOPICS), name="y")],
    }
    report = check_mixture("x,y", datasets, items=items)
    assert [one.items_seen for one in report.overlap] == [2, 1]
    assert report.benchmarks == {"b": 2} and report.shares["overlap"] == 1.0
    report = check_mixture("x", {"x": datasets["x"]}, items=items)
    assert report.shares["overlap"] == 0.5


def test_shares_and_limits(report):
    assert report.shares["overlap"] == 1.0
    assert report.shares["exact_duplicates"] == pytest.approx(2 / 173)
    assert report.shares["over_max_length"] == 0
    limits = [parse_limit("overlap=0.5"), parse_limit("exact_duplicates=0.02")]
    assert limits_exceeded(report, limits) == ["overlap: 100.00% is above the limit of 50.00%"]


@pytest.mark.parametrize("text", ["overlap", "overlap=", "overlap=2", "overlap=-1", "typos=0.1",
                                  "secrets=nan"])  # fmt: skip
def test_limits_that_are_none(text):
    with pytest.raises(ConfigError, match=r"not a limit for --fail_above .* KIND=SHARE"):
        parse_limit(text)


def test_thresholds_that_are_none():
    with pytest.raises(ConfigError, match=r"not a threshold for near duplicates - got 0.2"):
        CheckOptions(jaccard=0.2)


@pytest.mark.slow
def test_processes_do_not_change_the_report(items, report):
    datasets = {"tulu_a": [*clean(), *planted()], "tulu_b": list(clean(name="b"))}
    datasets["tulu_b"].append(conversation("copy", *texts(datasets["tulu_a"][5]), name="b"))
    assert check_mixture("tulu_a,tulu_b", datasets, items=items, num_processes=2) == report


def test_json_holds_no_secret_and_comes_back_equal(report):
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text) == json.loads(json.dumps(json.loads(text)))
    assert "lopez" not in text and KEY not in text
    kinds = json.loads(text)["datasets"]["tulu_a"]["findings"]
    assert kinds["near_duplicates"]["conversations"] == 1


def test_tables_fit_and_sections_can_be_shown(report):
    from rich.console import Console

    console = Console(width=100, record=True, force_terminal=False)
    for table in report_tables(report):
        console.print(table)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "near duplicates" in text and "a_near" in text and "gsm" in text
    assert "lopez" not in text
    sections = report_sections(report)
    assert [section["title"] for section in sections] == [
        "Findings", "Overlap with evaluation sets", "Examples", "Languages"]  # fmt: skip
    from tulu_jax.inspect.html import check_sections

    check_sections(sections)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_missing_package_is_named_before_anything_is_read(monkeypatch, num_processes):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ConfigError, match=r"got no datasketch - pip install 'tulu-jax\[check\]'"):
        check_mixture("x", {"x": iter([])}, num_processes=num_processes)


def test_nothing_and_one_conversation():
    empty = check_mixture("x", {"x": []})
    assert empty.datasets["x"].findings == {} and empty.overlap == []
    assert set(empty.shares.values()) == {0.0}
    one = check_mixture("x", {"x": [conversation(0, "Hi", "Hello", name="x")]})
    assert one.datasets["x"].conversations == 1 and one.datasets["x"].findings == {}
    assert report_tables(one) and report_sections(one)


def test_what_max_length_cuts_and_drops(tmp_path):
    from tasks import demo

    options = CheckOptions(tokenizer=str(demo.TOKENIZER_DIR), max_length=30)
    data = [conversation("short", "Hi", "Ho"), conversation("cut", "Hi", "Ho " * 40 + "."),
            conversation("none", "Hi"), conversation("dropped", "Hi " * 40, "Ho")]  # fmt: skip
    found = check_mixture("x", {"x": data}, options=options).datasets["x"].findings
    assert found["over_max_length"].examples == [
        ("a_cut", "cut"), ("a_dropped", "dropped: its prompt fills max_length")]  # fmt: skip


def test_lone_surrogates_and_long_texts_do_no_harm():
    data = [
        conversation(0, "\ud800 broken", "fine \udfff"),
        conversation(1, "x" * 10**6, "y " * 10**5),
    ]
    assert check_mixture("x", {"x": data}).datasets["x"].conversations == 2
