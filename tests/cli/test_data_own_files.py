"""The first thing a newcomer tries, on files in every shape: it is right, or says why not."""

# ruff: noqa: E501
from types import SimpleNamespace

import numpy as np
import pytest

from tasks import demo, sharegpt
from tests.tasks.own.rows import FORMATS, MESSAGES, SHAPES, as_lines, write
from tulu_jax.cli.main import main
from tulu_jax.data.config import DataConfig
from tulu_jax.data.ensure import open_training_data
from tulu_jax.data.keys import PrepareOptions
from tulu_jax.data.mixtures import get_mixture, split_names
from tulu_jax.data.prepare import prepare
from tulu_jax.data.rows import make_rows
from tulu_jax.data.specs import get_spec, locate_raw_dir
from tulu_jax.errors import DataError

TOKENIZER = ["--tokenizer", str(demo.TOKENIZER_DIR)]
PAIR = {"prompt": "q", "completion": "a"}


def put(folder, name, *rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(as_lines(rows))
    return path


@pytest.fixture
def tulu(capsys, monkeypatch, tmp_path):
    """Runs a command in `tmp_path`; its status, what it printed, and its messages."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return SimpleNamespace(status=status, out=out, err=err)

    return run


def shown(out):
    """What is said of conversations, without the lines that name them."""
    return [line for line in out.splitlines() if not line.startswith(("── ", "tulu_jsonl_"))]


@pytest.mark.parametrize("name", FORMATS)
def test_inspect_shows_the_same_for_every_format(tulu, tmp_path, name):
    expected = shown(
        tulu("data", "inspect", put(tmp_path, "plain.jsonl", *SHAPES["messages"]), *TOKENIZER).out
    )
    for shape in ("messages", "sharegpt", "pairs"):
        path = write(tmp_path, name, SHAPES[shape])
        got = tulu("data", "inspect", path, *TOKENIZER)
        assert got.status == 0 and shown(got.out) == expected
        assert (
            got.err.startswith(f"{name}: ")
            and "    the first: user 'What is 2+2?', assistant '4'" in got.err
        )


def test_inspect_without_a_tokenizer(tulu, tmp_path):
    chat = [*MESSAGES[1], {**MESSAGES[0][0]}, {"role": "assistant", "content": "no", "weight": 0}]
    path = put(tmp_path, "a.jsonl", {"messages": chat, "id": "x"}, {**PAIR, "completion": " "})
    got = tulu("data", "inspect", path)
    assert got.status == 0 and got.out.startswith(
        '── x (tulu_jsonl_a)\nuser:\na cup, "quoted"⏎\nin two lines\nassistant:\n[[größe; 中文   end]]\n'
        "user:\nWhat is 2+2?\nassistant (not trained):\nno\n1 of 2 answers are not trained, as"
    )
    assert "assistant:\n[[]]\n1 of 1 answers are empty or blank" in got.out
    assert "no tokenizer is named, so this is text: --tokenizer DIR shows the tokens" in got.out
    got = tulu("data", "inspect", path, "--search", "quoted", "--roles", "(ua)+", "--id", "x")
    assert got.out.count("── ") == 1
    got = tulu("data", "inspect", path, "--search", "nothing like it")
    assert got.status == 0 and "no conversation passes these filters" in got.out
    for flags in (["--packed"], ["--html", "a.html"], ["--min_tokens", "3"], ["--only", "dropped"]):
        got = tulu("data", "inspect", path, *flags)
        assert (
            got.status == 2 and f"{flags[0]} is about tokens and there is no tokenizer" in got.err
        )
    assert "tulu_demo" in tulu("data", "inspect", "tulu_demo", "--n", 1).out
    for name in sharegpt.FILES:
        (tmp_path / name).write_text("[]")
    got = tulu("data", "inspect", "tulu_sharegpt", "--raw_dir", tmp_path)
    assert got.status == 2 and "no tokenizer is named - name its folder with --tokenizer" in got.err


@pytest.mark.parametrize(
    "more", [[], TOKENIZER, [*TOKENIZER, "--packed"], [*TOKENIZER, "--html", "a.html"]]
)
def test_inspect_of_nothing_but_bad_records(tulu, tmp_path, more):
    path = put(tmp_path, "a.jsonl", *[{"messages": [{"role": "tool", "content": "4"}]}] * 3)
    got = tulu("data", "inspect", path, *more)
    assert got.status == 2 and "no conversation passes these filters" not in got.out
    assert (
        "too many bad records - got 3 of 3; first: record has calls or results of tools" in got.err
    )
    assert "mend these records or take them out" in got.err and "download" not in got.err
    assert not (tmp_path / "a.html").exists()


def test_inspect_of_no_record(tulu, tmp_path):
    (tmp_path / "a.json").write_text("[]")
    got = tulu("data", "inspect", "a.json")
    assert got.status == 2 and "there is no conversation to show - at a.json" in got.err


def test_what_is_not_used_is_said(tulu, tmp_path):
    row = {**PAIR, "tools": [1], "source": "s"}
    path = put(tmp_path, "a.jsonl", PAIR, row, row)
    lines = [f"field 'tools' is not used: 2 times, first at {path}, line 2", "not used: source (2)"]
    got = tulu("data", "inspect", path, *TOKENIZER)
    assert [f"tulu_jsonl_a: {line}" for line in lines] == got.out.splitlines()[-2:]
    assert "; not used: field 'tools', source" in got.err
    got = tulu("data", "prepare", path, *TOKENIZER, "--max_length", 64, "--num_processes", 1)
    assert [f"tulu_jsonl_a train: {line}" for line in lines] == got.out.splitlines()[-2:]


def test_columns_and_options_on_the_command_line(tulu, tmp_path):
    path = put(tmp_path, "qa=1.x, b.jsonl", {"question": "q", "answer": "a"})
    got = tulu("data", "inspect", path, *TOKENIZER)
    assert got.status == 2 and "--columns prompt=question,completion=answer" in got.err
    expected = "<|user|>⏎\nq⏎\n<|assistant|>⏎\n[[a</s>]]"
    columns = "prompt=question,completion=answer"
    assert expected in tulu("data", "inspect", path, *TOKENIZER, "--columns", columns).out
    for task in (path, path.name, "tulu_jsonl_qa_1_x_b"):
        option = f"{task}.columns={columns}"
        assert expected in tulu("data", "inspect", path, *TOKENIZER, "--option", option).out
    tools = {"messages": [{"role": "assistant", "content": "", "function_call": {"name": "f"}}]}
    path = put(tmp_path, "b.jsonl", tools)
    got = tulu(
        "data",
        "inspect",
        path,
        "--option",
        "b.jsonl.tools=text",
        "--option",
        "tulu_jsonl_b.empty=drop",
    )
    assert '[[<tool_call>⏎\n{"name": "f", "arguments": {}}⏎' in got.out
    for wrong in ("tulu_demo", "b.jsonl,qa=1.x, b.jsonl"):
        got = tulu("data", "inspect", wrong, "--columns", columns)
        assert got.status == 2 and "--columns is for one file of your own - got" in got.err


def test_names_of_files(tulu, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [
        "mein ordner/größe, 1.jsonl",
        "plain.jsonl",
        "a [1].jsonl",
        "data:1",
        "x,y,z.jsonl",
        "dir",
    ]
    for name in names[:-1]:
        put(tmp_path, name, PAIR)
    put(tmp_path / "dir", "a.jsonl", PAIR)
    for name in (
        *names,
        "./plain.jsonl",
        "sub/../plain.jsonl",
        "~/plain.jsonl",
        "dir/",
        f"{tmp_path}/x,y,z.jsonl",
    ):
        got = tulu("data", "inspect", name)
        assert got.status == 0 and "[[a]]" in got.out, name
    put(tmp_path, " space.jsonl", PAIR)
    assert "[[a]]" in tulu("data", "inspect", " space.jsonl").out
    assert split_names("plain.jsonl, x,y,z.jsonl,tulu_demo") == [
        "plain.jsonl",
        "x,y,z.jsonl",
        "tulu_demo",
    ]
    assert get_mixture("dir,data:1,dolly").tasks == ("dir", "data:1", "tulu_dolly")
    with pytest.raises(DataError, match=r"unknown dataset or mixture - got 'nothere'"):
        get_mixture("plain.jsonl,nothere")


def test_stats_and_check_read_them_too(tulu, tmp_path):
    path = put(tmp_path, "a.csv", *[])
    path.write_text("question,answer\nq,a\n")
    columns = ["--columns", "prompt=question,completion=answer"]
    got = tulu("data", "stats", path, *TOKENIZER, *columns, "--num_processes", 1)
    assert (
        got.status == 0
        and "jsonl_a" in got.out
        and got.err.startswith("a.csv: a table; prompt -> user")
    )
    got = tulu("data", "check", path, *columns, "--num_processes", 1)
    assert got.status == 0 and got.err.startswith("a.csv: a table; prompt -> user")


@pytest.mark.parametrize("name", FORMATS)
def test_stores_and_rows_are_those_of_the_same_messages(tmp_path, name):
    def rows_of(path):
        spec = get_spec(str(path))
        (store,) = prepare(
            str(path),
            PrepareOptions(tokenizer=TOKENIZER[1], max_length=96, data_dir=str(tmp_path / "data")),
            reader=lambda spec, split: spec.read(locate_raw_dir(spec, None), **spec.options),
            rebuild=True,
        )
        rows = make_rows([store], row_length=96, seed=1)
        return spec, [store[i] for i in range(len(store))], rows.batch(0, batch_size=1)

    (tmp_path / "plain").mkdir()
    _, theirs, batch = rows_of(put(tmp_path / "plain", "a.jsonl", *SHAPES["messages"]))
    for shape in SHAPES:
        spec, ours, same = rows_of(write(tmp_path, name, SHAPES[shape]))
        assert spec.own and len(ours) == len(theirs) == len(MESSAGES)
        for (tokens, mask), (their_tokens, their_mask) in zip(ours, theirs, strict=True):
            assert np.array_equal(tokens, their_tokens) and np.array_equal(mask, their_mask)
        assert all(np.array_equal(same[key], batch[key]) for key in batch)


@pytest.mark.slow
def test_training_rows_are_those_of_the_same_messages(tulu, tmp_path):
    """Conversations with flags, in a builder's files, a store and packed rows."""
    flagged = [{**MESSAGES[0][1], "weight": 0}, *MESSAGES[1]]
    plain = [*SHAPES["messages"], {"messages": [MESSAGES[0][0], *flagged]}]
    talk = [{"from": m["role"], "value": m["content"], **({"loss": False} if "weight" in m else {})}
            for m in plain[-1]["messages"]]  # fmt: skip
    rows = []
    for name, records in (
        ("a.jsonl", plain),
        ("b.json.gz", [*SHAPES["sharegpt"], {"conversations": talk}]),
    ):
        path = tmp_path / name
        path.write_bytes(as_lines(records))
        if name.endswith("gz"):
            path = write(tmp_path, "a.json.gz", records)
        config = DataConfig(mixture=str(path), tokenizer=TOKENIZER[1], length=96, batch_size=2,
                            data_dir=str(tmp_path / "data" / name), num_processes=1)  # fmt: skip
        options = PrepareOptions(tokenizer=TOKENIZER[1], max_length=96, data_dir=config.data_dir)
        assert tulu("data", "prepare", path, *TOKENIZER, "--max_length", 96, "--num_processes", 1,
                    "--data_dir", config.data_dir).status == 0  # fmt: skip
        assert options.specs(str(path))[0].own
        data = open_training_data(config)
        assert data.stores[0].meta["counts"]["answers"] == {
            "trained": 4,
            "empty": 0,
            "not trained": 1,
        }
        rows.append([data.train.batch(step, batch_size=2) for step in range(2)])
    for ours, theirs in zip(*rows, strict=True):
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert sum(int(batch["loss_mask"].sum()) for batch in rows[0]) > 0


@pytest.mark.parametrize("case", ["02-utf16", "07-tool-calls-content", "17-empty-assistant", "19-weight-zero",
    "22-dup-keys", "24-pretty", "25-list-in-jsonl", "26-jsonl-in-json", "29-gz", "31-parquet", "49-name-spaces"])  # fmt: skip
def test_cases_from_the_field(tulu, shared, case):
    """What `expected.md` of each says."""
    folder = shared / "cases" / case
    path = next(p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "expected.md")
    status, words = {
        "02-utf16": (2, "got UTF-16 text"),
        "07-tool-calls-content": (2, "record has calls or results of tools"),
        "17-empty-assistant": (0, "1 of 1 answers are empty or blank"),
        "19-weight-zero": (0, "bad answer</s>⏎\n<|user|>⏎\nagain⏎\n<|assistant|>⏎\n[[good</s>]]"),
        "22-dup-keys": (2, "object has a key twice - got 'content'"),
        "24-pretty": (2, "expected one record a line"),
        "25-list-in-jsonl": (0, "a JSON list of records whatever its name says"),
        "26-jsonl-in-json": (0, "one record a line whatever its name says"),
        "29-gz": (0, "[[yo</s>]]"),
        "31-parquet": (2, "Parquet file cannot be read"),
        "49-name-spaces": (0, "[[yo</s>]]"),
    }[case]
    got = tulu("data", "inspect", path, *TOKENIZER)
    assert got.status == status and words in got.out + got.err
    if case == "17-empty-assistant":
        got = tulu("data", "prepare", path, *TOKENIZER, "--num_processes", 1)
        assert got.status == 2 and "every answer of the dataset is empty" in got.err
