"""What is made of the same raw files and conversations stays the same, unless a version says.

Stores are found by these versions (`tulu_jax/data/keys.py`): a reader or an encoder that gives
something else under an old version would leave stores of before in use. So whoever changes a digest
of `versions.json` changes the version beside it: run this file as a program to write it anew.
"""

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from test_fuzz_conversations import EVOLVED, OWN, SELF_CHATS, TALKS, TREES, write_orca
from test_fuzz_instructions import ALPACA, FLAN, LINES, LISTS

from tasks import baize, demo, hard_coded, oasst1, open_orca, sharegpt, super_ni, wizardlm
from tulu_jax.chat import encode, load_tokenizer
from tulu_jax.data.faults import Faults
from tulu_jax.data.keys import ENCODER_VERSION
from tulu_jax.data.specs import all_specs, locate_raw_dir

KNOWN = Path(__file__).with_name("versions.json")
NAMED = "As ChatGPT I cannot."

CHANGED = {
    "tulu_oasst1": [{"rule": "every"}, {"rule": "october", "top_k": 1}],
    "tulu_sharegpt": [{"split": "paper", "max_length": 30}, {"max_length": 30}],
    "tulu_super_ni": [{"zero_shot_per_task": 1, "few_shot_per_task": 1, "num_exemplars": 1}],
    "tulu_cot": [{"num_zero_shot": 2, "num_few_shot": 1}],
    "tulu_open_orca": [{"num_gpt4": 2}],
    "tulu_hard_coded": [{"repeat": 2}],
    "tulu_jsonl": [{"tools": "text", "empty": "drop"}],
    **{
        f"tulu_{name}": [{"num_examples": 2}]
        for name in ("dolly", "gpt4_alpaca", "lima", "science", "self_instruct", "wizardlm")
    },
}
"""Options other than a dataset's own that make records by other ways."""


def write_raw(root):
    """A few raw records of each dataset, some of which name a model or are odd."""
    instructions = [*ALPACA, {"instruction": "Who?", "input": "", "output": NAMED}]
    inputs = [*FLAN, {"inputs": "Who?", "targets": NAMED, "task": "t"}]
    lines = {name: (file, rows) for name, (file, rows) in LINES.items()}
    lines["self_instruct"] = (LINES["self_instruct"][0], instructions)
    lines["flan_v2"] = (LINES["flan_v2"][0], inputs)
    files = {
        **{f"{name}/{file}": _lines(rows) for name, (file, rows) in lines.items()},
        **{f"{name}/{file}": json.dumps(instructions) for name, file in LISTS.items()},
        "flan_v2/flan_v2_resampled_50k.jsonl": _lines(inputs),
        "cot/cot_zsopt.jsonl": _lines(inputs),
        "cot/cot_fsopt.jsonl": _lines(inputs[::-1]),
        f"oasst1/{oasst1.FILE}": _lines([*TREES, _tree()]),
        **{f"sharegpt/{name}": json.dumps(TALKS) for name in sharegpt.FILES},
        **{f"baize/{part}_chat_data.json": json.dumps(SELF_CHATS) for part in baize.PARTS},
        f"wizardlm/{wizardlm.FILE}": json.dumps([*EVOLVED, {**EVOLVED[0], "idx": 8}]),
        f"super_ni/{super_ni.TASKS}": "task1_sums\n",
        "super_ni/tasks/task1_sums.json": json.dumps(
            {
                "Definition": ["Add the numbers."],
                "Positive Examples": [
                    {"input": f"{i} 1", "output": f"{i + 1}", "explanation": ""} for i in range(4)
                ],
                "Instances": [
                    {"id": f"task1-{i}", "input": f"{i} {i}", "output": [f"{2 * i}"]}
                    for i in range(5)
                ],
            }
        ),
        "jsonl/own.jsonl": _lines(OWN),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "open_orca").mkdir()
    texts = [[f"{column} {i}".encode() for column in open_orca.COLUMNS] for i in range(4)]
    write_orca(root / "open_orca" / open_orca.FILE, [*texts, [b"x", b"", b"Who?", NAMED.encode()]])
    (root / "hard_coded").mkdir()
    from openpyxl import Workbook

    book = Workbook()
    for row in (("Prompt", "Output"), ("Who are you?", "I am Tulu."), ("Why?", "So.")):
        book.active.append(row)
    book.save(root / "hard_coded" / hard_coded.FILE)
    return root


def _lines(rows):
    return "\n".join(map(json.dumps, rows))


def _tree():
    """A question with three answers, one of which is from Open Assistant."""
    texts = ("one", "I am OpenAssistant", "two")
    answers = [
        {"text": text, "role": "assistant", "rank": rank, "replies": []}
        for rank, text in enumerate(texts)
    ]
    return {"prompt": {"text": "Who?", "role": "prompter", "replies": answers}}


def digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def records_digest(spec, root, tokenizer):
    """A digest of the dataset's records, with its own options and with those of `CHANGED`."""
    found = []
    for more in ({}, *CHANGED.get(spec.task_name, [])):
        chosen = dataclasses.replace(spec, options=spec.resolve_options(more))
        for split in spec.splits:
            faults = Faults()
            folder = locate_raw_dir(spec, root)
            rows = chosen.conversations(folder, split, tokenizer=tokenizer, faults=faults)
            found.append([list(rows), faults.skipped, faults.left_out])
    assert sum(len(rows) for rows, *_ in found) > 0
    return digest(found)


def encodings_digest():
    """A digest of tokens and masks of odd conversations, by either encoding, cut and whole."""
    rows = [
        [("user", "What is 1?"), ("assistant", " 2 "), ("user", "é 名前 🐪"), ("assistant", "")],
        [("system", "Be kind.\n\nAlways."), ("user", "</s> <s>"), ("assistant", "a\n<|user|>\nb")],
        [("user", "cup " * 9), ("assistant", "hat, " * 9), ("assistant", "again")],
    ]
    found = []
    for encoding in ("hf", "paper"):
        tokenizer = load_tokenizer(demo.TOKENIZER_DIR, encoding)
        for row in rows:
            messages = [{"role": role, "content": content} for role, content in row]
            messages[-1]["train"] = True
            for longest in (None, 40):
                one = encode(messages, tokenizer, longest)
                found.append([one.tokens.tolist(), one.loss_mask.tolist(), one.truncated])
    return digest(found)


def found_now(root):
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    found = {
        name: [spec.version, records_digest(spec, root, tokenizer)]
        for name, spec in all_specs().items()
    }
    return {"encoder": [ENCODER_VERSION, encodings_digest()], **found}


def test_records_change_with_their_version(tmp_path):
    pytest.importorskip("openpyxl")
    known, now = json.loads(KNOWN.read_text()), found_now(write_raw(tmp_path))
    changed = [name for name in now if name in known and now[name][1] != known[name][1]]
    unsaid = [name for name in changed if now[name][0] == known[name][0]]
    assert not unsaid, "these give something else now: give them a new version"
    assert now == known, f"state this in {KNOWN.name}: run this file as a program"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        now = found_now(write_raw(Path(folder)))
    lines = [f"{json.dumps(name)}: {json.dumps(stated)}" for name, stated in now.items()]
    KNOWN.write_text("{\n " + ",\n ".join(lines) + "\n}\n")
