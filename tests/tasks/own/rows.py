"""The same few conversations in every shape, and files of rows in every format."""

import csv
import gzip
import io
import json

import zstandard

TALKS = [
    [("user", "What is 2+2?"), ("assistant", "4")],
    [("user", 'a cup, "quoted"\nin two lines'), ("assistant", "größe; 中文\tend")],
    [("user", "Is it cold?"), ("assistant", "No, it is not.")],
]
"""Conversations of one question and one answer each, as (role, text)."""

MESSAGES = [[{"role": role, "content": text} for role, text in talk] for talk in TALKS]


def in_parts(message):
    """The message with its text in two parts."""
    texts = message["content"][:3], message["content"][3:]
    return {**message, "content": [{"type": "text", "text": text} for text in texts]}


NAMES = {"user": "human", "assistant": "gpt"}

SHAPES = {
    "messages": [{"messages": messages} for messages in MESSAGES],
    "parts": [{"messages": [in_parts(m) for m in messages]} for messages in MESSAGES],
    "pairs": [{"prompt": talk[0][1], "completion": talk[1][1]} for talk in TALKS],
    "sharegpt": [
        {"conversations": [{"from": NAMES[role], "value": text} for role, text in talk]}
        for talk in TALKS
    ],
}  # fmt: skip
"""Records of one shape each, all of the same conversations."""


def as_csv(rows, mark=","):
    """The rows as a table; lists are JSON in their cells."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=mark)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(json.dumps(v) if isinstance(v, list) else v for v in row.values())
    return text.getvalue().encode()


def as_lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_list(rows):
    return json.dumps(rows, indent=1).encode()


def as_parquet(rows):
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


FORMATS = {
    "a.jsonl": as_lines,
    "a.json": as_list,
    "data.json": lambda rows: json.dumps({"version": "1", "data": rows}).encode(),
    "rows.json": lambda rows: json.dumps({"rows": rows}, indent=2).encode(),
    "lines.json": as_lines,
    "list.jsonl": as_list,
    "one_line_list.jsonl": lambda rows: json.dumps(rows).encode(),
    "object.jsonl": lambda rows: json.dumps({"data": rows}).encode(),
    "a.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "packed.jsonl": lambda rows: gzip.compress(as_lines(rows)),
    "a.json.gz": lambda rows: gzip.compress(as_list(rows)),
    "a.jsonl.zst": lambda rows: zstandard.compress(as_lines(rows)),
    "a.json.zst": lambda rows: (
        zstandard.compress(as_list(rows)[:40]) + zstandard.compress(as_list(rows)[40:])
    ),
    "bom.jsonl": lambda rows: b"\xef\xbb\xbf" + as_lines(rows).replace(b"\n", b"\r\n\r\n"),
    "bom_line.jsonl": lambda rows: b"\xef\xbb\xbf\n" + as_lines(rows),
    "bom.jsonl.gz": lambda rows: gzip.compress(b"\xef\xbb\xbf" + as_lines(rows)),
    "bom.json": lambda rows: b"\xef\xbb\xbf" + as_list(rows),
    "a.parquet": as_parquet,
    "table.jsonl": as_parquet,
    "a.csv": as_csv,
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows),
    "excel.csv": lambda rows: as_csv(rows, ";"),
    "tabs.csv": lambda rows: as_csv(rows, "\t"),
    "a.tsv": lambda rows: as_csv(rows, "\t"),
    "a.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "lines.csv": as_lines,
    "lines.parquet": as_lines,
    "noname": as_lines,
}
"""What a file of that name holds for some rows."""


def write(folder, name, rows):
    """The file of that name with these rows in its format."""
    path = folder / name
    path.write_bytes(FORMATS[name](rows))
    return path
