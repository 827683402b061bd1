"""A store that an earlier version made (November 2026) is read, and would be made just so now."""

import json
import shutil
from pathlib import Path

from tasks import demo
from tulu_jax.chat import load_tokenizer
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.prepare import prepare
from tulu_jax.data.rows import make_rows
from tulu_jax.data.store import open_store
from tulu_jax.inspect.report import dataset_report

OLD = Path(__file__).with_name("old_store")
ROWS = [
    {"instruction": "What is 1 plus 1?", "context": "", "response": "2"},
    {"instruction": "Name a cup.", "context": "A red cup.", "response": "The red cup, é 🐪."},
    {"instruction": "Say nothing.", "context": "", "response": ""},
]


def test_an_old_store_is_read(tmp_path):
    store = open_store(shutil.copytree(OLD, tmp_path / "store"))
    assert store.ids == ["dolly_0", "dolly_1", "dolly_2"] and store.name == "tulu_dolly"
    tokenizer = load_tokenizer(demo.TOKENIZER_DIR)
    assert store.meta["tokenizer"] == tokenizer.fingerprint
    tokens, mask = store[1]
    assert tokenizer.decode(tokens[mask].tolist()).strip() == "The red cup, é 🐪."
    assert make_rows([store], row_length=64).batch(0, 1)["tokens"].shape == (1, 64)
    (report,) = dataset_report([store], row_length=64)
    assert (report.examples, report.tokens, report.loss_tokens) == (3, 84, 19)


def test_it_would_be_made_just_so_now(tmp_path):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"
    (tmp_path / "databricks-dolly-15k.jsonl").write_text(lines)
    options = PrepareOptions(
        tokenizer=str(demo.TOKENIZER_DIR),
        max_length=64,
        data_dir=str(tmp_path / "data"),
        raw_dir=str(tmp_path),
    )
    (store,) = prepare("tulu_dolly", options)
    for name in ("tokens.array_record", "index.npz"):
        assert (store.path / name).read_bytes() == (OLD / name).read_bytes()
    old = json.loads((OLD / "meta.json").read_text())
    changed = {"task_code", "encoder", "key", "tokenizer_path", "code_version"}
    assert old.keys() ^ store.meta.keys() == {"task_code", "encoder"}
    for name in old.keys() - changed:
        assert store.meta[name] == old[name], name
