"""Trees become the paths that each of the reference's three rules makes of them."""

import json
import sys

import pytest

from tasks import oasst1, read_conversations
from tulu_jax.data.faults import Faults
from tulu_jax.errors import ConfigError, DataError


def node(text, *replies, role=None, **more):
    """A message; its role is told by its text, `q...` for a question."""
    role = role or ("prompter" if text[0] == "q" else "assistant")
    return {"text": text, "role": role, "replies": list(replies), **more}


def quality(value):
    return {"labels": {"quality": {"value": value, "count": 3}}}


def cut(tree, rule, top_k=None):
    """The paths of a tree, each as the texts of its messages."""
    found = oasst1.paths(tree, rule, top_k=top_k, at="f, line 1")
    return [" ".join(turn["content"] for turn in path) for path in found]


@pytest.mark.parametrize(("rule", "golden"), [("leaf", "august"), ("every", "june")])
def test_messages_equal_the_reference(shared, rule, golden):
    expected = (shared / f"data/golden/records/oasst1_{golden}.jsonl").read_text().splitlines()
    ours = read_conversations("oasst1", shared / "data/raw/oasst1", rule=rule)
    assert [json.dumps(row) for row in ours] == expected


def test_the_rule_of_august_is_the_default(shared):
    golden = shared / "data/golden/records/oasst1_august.jsonl"
    ours = read_conversations("oasst1", shared / "data/raw/oasst1")
    assert [json.dumps(row) for row in ours] == golden.read_text().splitlines()


TREE = node(
    "q1",
    node("a1", node("q2", node("a2"), node("a3")), node("q3")),
    node("a4"),
)


def test_every_takes_each_assistant_message():
    assert cut(TREE, "every") == ["q1 a1", "q1 a1 q2 a2", "q1 a1 q2 a3", "q1 a4"]


@pytest.mark.parametrize("rule", ["leaf", "october"])
def test_leaf_rules_take_answers_without_reply_and_lose_unanswered_questions(rule):
    assert cut(TREE, rule) == ["q1 a1 q2 a2", "q1 a1 q2 a3", "q1 a4"]
    assert cut(node("q1", node("a1", node("q2"))), rule) == []
    assert cut(node("q1"), rule) == []


def test_roles_and_texts_are_kept():
    path = next(oasst1.paths(node("q ", node(" a\n")), "leaf", at="f"))
    assert path == [{"role": "user", "content": "q "}, {"role": "assistant", "content": " a\n"}]


@pytest.mark.parametrize("name", oasst1.NAMES)
def test_names_are_left_out_with_what_follows_by_leaf_only(name):
    tree = node("q1", node(f"a1 by {name}", node("q2", node("a2"))), node("a3"))
    assert cut(tree, "leaf") == ["q1 a3"]
    assert len(cut(tree, "october")) == 2
    assert cut(node(f"q {name}", node("a1")), "leaf") == []
    # An answer all of whose replies are left out still has replies, so it is no leaf.
    assert cut(node("q1", node("a1", node(f"q {name}"))), "leaf") == []


def test_deleted_messages_are_left_out_with_what_follows_by_october_only():
    gone = {"deleted": True}
    tree = node("q1", node("a1", node("q2", node("a2")), **gone), node("a3", deleted=False))
    assert cut(tree, "october") == ["q1 a3"]
    assert cut(tree, "leaf") == ["q1 a1 q2 a2", "q1 a3"]
    assert cut(node("q1", node("a1"), **gone), "october") == []
    assert cut(node("q1", node("a1", node("q2", **gone))), "october") == []


def test_top_k_keeps_the_best_at_every_level_and_for_both_roles():
    tree = node(
        "q1",
        node("a1", **quality(0.5)),
        node(
            "a2", node("q2", node("a3"), **quality(0.1)), node("q3", node("a4"), **quality(0.2)),
            **quality(0.9),
        ),
        node("a5", **quality(0.9)),
    )  # fmt: skip
    assert cut(tree, "october", 1) == ["q1 a2 q3 a4"]
    assert cut(tree, "october", 2) == ["q1 a2 q3 a4", "q1 a2 q2 a3", "q1 a5"]
    assert len(cut(tree, "october")) == 4


def test_top_k_counts_after_deletion():
    tree = node("q1", node("a1", deleted=True, **quality(1.0)), node("a2", **quality(0.1)))
    assert cut(tree, "october", 1) == ["q1 a2"]


@pytest.mark.parametrize(
    "more", [{}, {"labels": None}, {"labels": {}}, {"labels": {"quality": {}}}, quality("good")]
)
def test_missing_quality_is_zero_and_ties_keep_their_order(more):
    tree = node("q1", node("a1", **more), node("a2", **quality(0)), node("a3", **quality(-1)))
    assert cut(tree, "october", 2) == ["q1 a1", "q1 a2"]


def test_depth_is_not_limited_by_the_interpreter():
    tree = node("a")
    for depth in range(3 * sys.getrecursionlimit()):
        tree = node("q" if depth % 2 == 0 else "a", tree)
    assert sum(1 for _ in oasst1.paths(tree, "leaf", at="f")) == 1


def write(tmp_path, *trees):
    lines = [json.dumps({"message_tree_id": "x", "prompt": tree}) for tree in trees]
    (tmp_path / oasst1.FILE).write_text("\n".join(lines))
    return tmp_path


def test_conversations_are_numbered_through(tmp_path):
    folder = write(tmp_path, TREE, node("q"), TREE)
    rows = list(read_conversations("oasst1", folder))
    assert [row["id"] for row in rows] == [f"oasst1_{n}" for n in range(6)]
    assert {row["dataset"] for row in rows} == {"oasst1"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (None, "message has the wrong type - got NoneType None .*, line 2 - expected a JSON obj"),
        (node("q", "a"), "message has the wrong type - got str 'a' .*, line 2"),
        (node("q", {"text": "a", "role": "assistant"}), "missing field 'replies' .*, line 2"),
        (node("q", node("a", role="bot")), "unknown role - got 'bot' .* - expected prompter or a"),
        (node("q", {"text": 3, "role": "assistant", "replies": []}), "field 'text' has the wrong"),
        (node("q", node("a \ud800")), "half a character"),
    ],
)
def test_a_bad_tree_is_named_or_skipped_whole(tmp_path, tree, message):
    folder = write(tmp_path, TREE, tree, TREE)
    with pytest.raises(DataError, match=message):
        list(read_conversations("oasst1", folder))
    faults = Faults(strict=False)
    assert len(list(read_conversations("oasst1", folder, faults=faults))) == 6
    assert (faults.records, faults.skipped) == (3, 1)


def test_options_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match=r"unknown rule of oasst1 - got 'leaves' .*leaf"):
        list(read_conversations("oasst1", tmp_path, rule="leaves"))
    for options in ({"top_k": 1}, {"top_k": 0, "rule": "october"}):
        with pytest.raises(ConfigError, match="oasst1 cannot use top_k - got top_k"):
            list(read_conversations("oasst1", tmp_path, **options))


def test_the_reading_of_tulu_2(tmp_path):
    best = node("q1", node("a1", **quality(0.1)), node("a2", **quality(0.2)))
    folder = write(tmp_path, best, node("q", node("a, said ChatGPT")), best)
    faults = Faults(strict=False)
    rows = list(read_conversations("tulu_v2_oasst1", folder, faults=faults))
    assert [row["messages"][1]["content"] for row in rows] == ["a2", "a2"]
    assert [row["id"] for row in rows] == ["oasst1_0", "oasst1_2"]
    assert sum(faults.left_out.values()) == 1
