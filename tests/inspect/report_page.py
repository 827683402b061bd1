"""A report with every kind of content, for the tests of the page."""

from itertools import islice

from tasks import demo
from tulu_jax.chat import load_tokenizer
from tulu_jax.inspect.html import packed_rows, report_data, write_report
from tulu_jax.inspect.looking import Filters, encode_views, sample, view_of_examples

MARKUP = "</script><script>document.title='hacked'</script><img src=x onerror=\"hacked=1\"><!--"
ARABIC, HEBREW = "البحرُ أزرقُ", "שלום עולם"
CONTROL = "\x1b[31mred \u202egnp.exe\u202c \u2028 \x9b tab\there"
EMOJI = "👩\u200d👩\u200d👧 中文 नमस्ते"

SECTIONS = [
    {
        "title": "Duplicates <b>",
        "note": "Exact and near.",
        "blocks": [
            {"kind": "table", "columns": ["set", "exact"], "rows": [["a<i>", 12345], ["b", None]]},
            {"kind": "bars", "title": "by length", "items": [["x", 3], ["y", 10]], "unit": "rows"},
            {"kind": "histogram", "edges": [0, 1, 5], "counts": [3, 9], "unit": "tokens"},
            {"kind": "text", "text": MARKUP},
            {"kind": "quotes", "items": [{"label": "a_1", "text": ARABIC + CONTROL}]},
        ],
    }
]  # fmt: skip


def record(name, *turns):
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(turns)
    ]
    return {"dataset": "small", "id": name, "messages": messages}


RECORDS = {
    "tulu_plain": [
        record("camels", "Why can camels survive?", "They use the fat in their humps."),
        record("twice", "What comes after 1?", "2", "And then?", "3"),
        *(record(f"bulk_{i}", f"What comes after {i}?", f"{i + 1} it is.") for i in range(300)),
    ],
    "tulu_odd": [
        record("markup" + MARKUP, MARKUP, MARKUP + " answered"),
        record("scripts", f"{ARABIC} c++", f"{HEBREW} {EMOJI}"),
        record("control", CONTROL, "plain"),
        record("long", "word " * 200, "never seen"),
    ],
}


def make_report(path, *, max_length=192, count=400):
    """Writes the report to `path`."""
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    looked = [
        view_of_examples(task, encode_views(task, records, tokenizer, max_length=max_length))
        for task, records in RECORDS.items()
    ]
    examples = sample(looked, count, filters=Filters(), tokenizer=tokenizer)
    rows = list(islice(packed_rows(looked, row_length=max_length, seed=1), 20))
    return write_report(
        path,
        title=f"mixture {MARKUP}",
        settings={"tokenizer": f"demo {MARKUP}"},
        sections=SECTIONS,
        data=report_data(looked, examples, rows, tokenizer=tokenizer),
    )
