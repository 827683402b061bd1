"""The report: what its data says, and that nothing in it becomes markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tasks import demo
from tests.inspect.report_page import MARKUP, RECORDS, SECTIONS, make_report
from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.errors import DataError
from tulu_jax.inspect.html import check_sections, packed_rows, report_data, write_report
from tulu_jax.inspect.html.payload import length_edges, mask_runs
from tulu_jax.inspect.looking import encode_views, view_of_examples

TOKENIZER = load_tokenizer(demo.TOKENIZER_DIR)


class Elements(HTMLParser):
    """Every start tag, and the text of each script and style element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open = [tag, dict(attrs), ""]
            self.texts.append(self.open)

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open:
            self.open[2] += data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report") / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def payload(page):
    (data,) = (text for _, attrs, text in Elements(page).texts if attrs.get("id") == "data")
    return json.loads(data)


def test_the_page_asks_nothing_of_the_network(page):
    tags = Elements(page).tags
    assert not {"link", "img", "iframe", "object", "base"} & {tag for tag, _ in tags}
    assert not any({"src", "href"} & set(attrs) - {"href"} for _, attrs in tags)
    assert [attrs["href"] for _, attrs in tags if "href" in attrs] == ["#main"]
    assert "https://" not in page and "http://" not in page.replace(
        "http://www.w3.org/2000/svg", ""
    )


def test_the_policy_allows_this_style_and_script_only(page):
    found = Elements(page)
    (policy,) = (a["content"] for t, a in found.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag, attrs, text in found.texts:
        if attrs.get("id") == "data":
            continue
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_hostile_text_stays_data(page, payload):
    tags = [tag for tag, _ in Elements(page).tags]
    assert tags.count("script") == 2 and "img" not in tags
    assert payload["title"] == f"mixture {MARKUP}"
    assert any(c["id"] == "markup" + MARKUP for c in payload["conversations"])
    assert "\u2028" not in page and "<!--" not in page


def text_of(payload, conversation):
    tokens, groups = conversation["tokens"], {g[0]: g for g in conversation["groups"]}
    text, at = "", 0
    while at < len(tokens):
        _, size, own = groups.get(at, (at, 1, payload["vocabulary"][str(tokens[at])][1]))
        text, at = text + own, at + size
    return text


def test_each_conversation_can_be_rebuilt_from_the_data(payload):
    records = {record["id"]: record for task in RECORDS.values() for record in task}
    assert len(payload["examples"]) > 200
    for number in payload["examples"]:
        one = payload["conversations"][number]
        encoded = encode(records[one["id"]]["messages"], TOKENIZER, max_length=192)
        assert one["tokens"] == encoded.tokens.tolist()
        flags = np.repeat(np.arange(len(one["mask"])) % 2 == 1, one["mask"])
        assert flags.tolist() == encoded.loss_mask.tolist()
        assert text_of(payload, one) == TOKENIZER.decode(encoded.tokens, skip_special=False)
    assert payload["special"] == [TOKENIZER.bos_id, TOKENIZER.eos_id]


def test_counts_and_histograms(payload):
    plain, odd = payload["tasks"]
    assert (plain["name"], plain["examples"], plain["read"]) == ("plain", 302, 302)
    assert (odd["examples"], odd["dropped"]) == (3, {"prompt fills max_length": 1})
    for name in ("lengths", "shares"):
        edges, counts = payload[name]["edges"], payload[name]["counts"]
        assert [sum(one) for one in counts] == [302, 3]
        assert all(len(one) == len(edges) - 1 for one in counts)


def test_what_is_unusual_about_a_dataset_is_noted():
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "No", "train": False},
        {"role": "assistant", "content": " "},
    ]
    shown = encode_views("tulu_a", [{"id": "a", "messages": messages}], TOKENIZER, max_length=64)
    metadata = {"unused": {"a": {"field 'tools'": [2, "a, line 1"]}}, "metadata": {"source": 3}}
    looked = [view_of_examples("tulu_a", shown, not_used=metadata)]
    assert report_data(looked, [], [], tokenizer=TOKENIZER)["tasks"][0]["notes"] == [
        "1 of 2 answers are not trained, as their records say",
        "1 of 1 answers are empty or blank: nothing but their end is trained",
        "field 'tools' is not used: 2 times, first at a, line 1",
        "not used: source (3)",
    ]


def test_rows_name_their_segments(payload):
    assert payload["rows"] and all(row["length"] == 192 for row in payload["rows"])
    for row in payload["rows"]:
        lengths = [len(payload["conversations"][n]["tokens"]) for n in row["segments"]]
        assert 0 < sum(lengths) <= 192


def test_mask_runs_and_edges():
    assert mask_runs(np.array([], bool)) == [0]
    assert mask_runs(np.array([True, False])) == [0, 1, 1]
    assert length_edges(2048)[-1] > 2048 and length_edges(0) == [0, 8]


def test_a_task_without_examples_can_be_shown(tmp_path):
    looked = [view_of_examples("tulu_none", encode_views("tulu_none", [], TOKENIZER, max_length=9))]
    data = report_data(looked, [], list(packed_rows(looked, row_length=9)), tokenizer=TOKENIZER)
    assert write_report(tmp_path / "deep" / "a.html", title="none", data=data).is_file()


def test_the_file_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(DataError, match=r"cannot write the report - got .* at"):
        write_report(tmp_path, title="a folder lies here")
    assert list(tmp_path.iterdir()) == [] and not list(tmp_path.parent.glob(".*html*"))


def test_sections_are_checked():
    check_sections(SECTIONS)
    with pytest.raises(DataError, match="not a section of a report - got"):
        check_sections([{"title": "no blocks"}])
    bad = {
        "kind 'pie', not one of table": {"kind": "pie"},
        "KeyError 'columns' in a table": {"kind": "table"},
        "fields that do not make a table": {"kind": "table", "columns": ["a"], "rows": [[1, 2]]},
        "fields that do not make a bars": {"kind": "bars", "items": [["a", -1]]},
        "fields that do not make a histogram": {"kind": "histogram", "edges": [0], "counts": [1]},
        "fields that do not make a text": {"kind": "text", "text": 3},
    }
    for message, block in bad.items():
        with pytest.raises(DataError, match=re.escape(f"block cannot be shown - got {message}")):
            check_sections([{"title": "t", "blocks": [block]}])
    infinite = {"kind": "table", "columns": ["a"], "rows": [[float("nan")]]}
    with pytest.raises(DataError, match="fields that do not make a table at section 't', block 0"):
        check_sections([{"title": "t", "blocks": [infinite]}])
