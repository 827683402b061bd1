"""`tulu generate` and `tulu chat`."""

import io
import json
import shutil

import numpy as np
import pytest

from tulu_jax.chat import load_tokenizer
from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.arrays import save_params
from tulu_jax.cli import chat as chat_module
from tulu_jax.cli import generate
from tulu_jax.cli.chat import HELP
from tulu_jax.errors import CheckpointError, ConfigError, DataError
from tulu_jax.generate import Completion, sizes
from tulu_jax.generate.sizes import cache_length, slot_bytes
from tulu_jax.generate.stats import Stats
from tulu_jax.models import config_to_dict

from .small_model import tulu, typed, write_model


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "hf")


@pytest.fixture(scope="module")
def run(model):
    tulu("import", "--hf", model, "--model_dir", model.parent / "run")
    return model.parent / "run"


SHORT = ("--max_new_tokens", "8")


def test_one_prompt_from_both_kinds_of_folder(model, run, capsys):
    printed = []
    for path in (model, run):
        assert tulu("generate", "--model", path, "--prompt", "Name a colour.", *SHORT) == 0
        out, err = capsys.readouterr()
        printed.append(out)
        assert "tokens/s" in err
    assert printed[0].strip()
    assert printed[0] == printed[1]


def test_stop_tokens_of_generation_config_end_an_answer_and_are_exported(model, tmp_path, capsys):
    words = ("--input", tmp_path / "in.jsonl", "--output")
    (tmp_path / "in.jsonl").write_text('{"prompt": "Name a colour."}')
    tulu("generate", "--model", model, *words, tmp_path / "1", *SHORT)
    answer = rows(tmp_path / "1")[0]
    assert answer["stopped"] == "length"
    third = load_tokenizer(model).encode_text(answer["output"])  # any token that it makes
    stop = min(third)
    shutil.copytree(model, tmp_path / "hf")
    fields = {"eos_token_id": [2, stop], "do_sample": True, "temperature": 0.6}
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(fields))
    (tmp_path / "hf" / "checksums.json").unlink()
    tulu("import", "--hf", tmp_path / "hf", "--model_dir", tmp_path / "run")
    capsys.readouterr()
    for number, path in enumerate(("hf", "run")):
        tulu("generate", "--model", tmp_path / path, *words, tmp_path / f"out{number}", *SHORT)
        found = rows(tmp_path / f"out{number}")[0]
        assert found["stopped"] == "eos" and found["output_tokens"] < 8
        asked = "note generation_config.json asks for temperature=0.6: not followed here"
        assert asked in capsys.readouterr().err
    tulu("export", "--model_dir", tmp_path / "run", "--output", tmp_path / "back")
    written = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert stop in written["eos_token_id"] and written["temperature"] == 0.6


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_file_of_prompts(model, tmp_path, capsys):
    asked = [
        {"id": 1, "prompt": "Say hello."},
        {"id": 2, "messages": [{"role": "user", "content": "Say hello."}]},
        {"id": 3, "prompt": "A longer question, which makes another batch: why?"},
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(json.dumps(row) for row in asked))
    options = ("--model", model, "--input", tmp_path / "in.jsonl", "--batch_size", "2", *SHORT)
    assert tulu("generate", *options, "--output", tmp_path / "out.jsonl") == 0
    answered = rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in answered] == [1, 2, 3]
    assert answered[0]["output"] == answered[1]["output"]
    for row in answered:
        assert row["output_tokens"] <= 8
        assert row["stopped"] == ("length" if row["output_tokens"] == 8 else "eos")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert "3 answers" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"output exists .* add --overwrite"):
        tulu("generate", *options, "--output", tmp_path / "out.jsonl")


def test_raw_text_and_sampling(model, capsys):
    words = ("--model", model, "--raw", "--prompt", "Once", "--temperature", "1", *SHORT)
    printed = []
    for seed in ("1", "1", "2"):
        tulu("generate", *words, "--top_p", "0.9", "--seed", seed)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_a_short_model_answers_without_being_told_how_long(model, capsys):
    """As the demo's, whose rows are no longer than the default answer."""
    tulu("generate", "--model", model, "--prompt", "x")
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--batch_size", "0", "a whole number from 1 to 1,000,000,000"),
        ("--top_p", "2", "a number above 0 and up to 1"),
        ("--temperature", "nan", "0 or more"),
        ("--seed", "-1", "a whole number from 0 to 4,294,967,295"),
        ("--seed", "36893488147419103232", "a whole number from 0 to 4,294,967,295"),
        ("--max_new_tokens", "0", "a whole number from 1 to 1,000,000,000"),
    ],
)
def test_numbers_out_of_range(capsys, flag, value, expected):
    with pytest.raises(SystemExit, match="2"):
        tulu("generate", "--model", "x", "--prompt", "x", flag, value)
    told = f"argument {flag}: is out of range - got {value} - expected {expected}"
    assert told in capsys.readouterr().err


def test_other_mistakes(model, tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json is missing .* or a run \("):
        tulu("generate", "--model", tmp_path, "--prompt", "x")
    with pytest.raises(ConfigError, match=r"--step goes with a run folder - got 3"):
        tulu("chat", "--model", model, "--step", "3")
    with pytest.raises(DataError, match=r"leaves no room for an answer .* at --prompt"):
        tulu("generate", "--model", model, "--prompt", "x " * 300)


def test_answers_end_where_the_models_length_does(model, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('{"prompt": "Name a colour."}\n{"prompt": "x"}')
    words = ("--model", model, "--input", tmp_path / "in.jsonl", "--max_new_tokens", "400")
    tulu("generate", *words, "--output", tmp_path / "1")
    length = hf.open_folder(model).config.max_length
    assert {row["stopped"] for row in rows(tmp_path / "1")} <= {"room", "eos"}
    assert "room" in {row["stopped"] for row in rows(tmp_path / "1")}
    assert f"end where the model's length of {length} tokens does" in capsys.readouterr().err
    tulu("generate", *words, "--output", tmp_path / "2", "--max_length", "600")
    for short, longer in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert longer["output"].startswith(short["output"])
        assert longer["stopped"] in ("eos", "length")


def test_a_text_ends_an_answer(model, tmp_path):
    words = ("generate", "--model", model, "--prompt", "Name a colour.", *SHORT, "--output")
    tulu(*words, tmp_path / "1")
    whole = rows(tmp_path / "1")[0]["output"]
    stop = whole[3:6]
    tulu(*words, tmp_path / "2", "--stop", "never", "--stop", stop)
    found = rows(tmp_path / "2")[0]
    assert found["output"] == whole[: whole.index(stop)] and found["stopped"] == f"stop:{stop}"


def test_fewer_run_side_by_side_where_memory_is_short(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 4)
    words = ("generate", "--model", model, "--input", tmp_path / "in.jsonl", *SHORT)
    config = hf.open_folder(model).config
    held = cache_length(config.max_length, "cpu")
    need = config.num_params * 4 + 2.5 * slot_bytes(config, held, "float32")
    monkeypatch.setattr(sizes, "free_memory", lambda: int(need / 0.9))
    tulu(*words)
    assert "memory has room for 2 slots of" in capsys.readouterr().err
    monkeypatch.setattr(sizes, "free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="model and one sequence do not fit into the memory"):
        tulu(*words)


def chat(monkeypatch, capsys, model, text, *words):
    typed(monkeypatch, text)
    assert tulu("chat", "--model", model, *SHORT, *words) == 0
    return capsys.readouterr().out


def test_chat_keeps_the_conversation(monkeypatch, capsys, model):
    out = chat(monkeypatch, capsys, model, "Hi\nHi\n/reset\nHi\n/quit\nnever read\n")
    first, second, after, third = out.split("you> ")[1:5]
    assert "conversation forgotten" in after
    assert first == third
    assert first != second


def test_chat_commands(monkeypatch, capsys, model):
    text = "/help\n/nonsense\n/system Be kind.\nHi\n/reset\nHi\n/system\nHi\n\n"
    out = chat(monkeypatch, capsys, model, text).split("you> ")
    assert HELP in out[1]
    assert "unknown command /nonsense" in out[2]
    assert "with this system message" in out[3]
    assert out[4] == out[6]
    assert "without system message" in out[7]
    assert out[8].strip() != out[4].strip()


def test_chat_that_grows_too_long_says_so(monkeypatch, capsys, model):
    out = chat(monkeypatch, capsys, model, "word " * 200 + "\nHi\n").split("you> ")
    assert "conversation is too long for the model - got" in out[1]
    assert "write a shorter message" in out[1]
    assert "too long" not in out[2]


def test_chat_of_many_messages_that_grows_too_long_says_so(monkeypatch, capsys, model):
    out = chat(monkeypatch, capsys, model, ("word " * 20 + "\n") * 5).split("you> ")
    assert "/reset starts a new one" in out[5]


def test_chat_shows_what_generate_prints(monkeypatch, capsys, model):
    out = chat(monkeypatch, capsys, model, "Name a colour.\n").split("you> ")[1]
    tulu("generate", "--model", model, "--prompt", "Name a colour.", *SHORT)
    assert out.strip() == capsys.readouterr().out.strip()


HARD = "d[1:x:2] [bold]b[/bold] [/x] :smile:\tif x:\n\t\tpass "
"""What a pretty printer would change."""
SHOWN = " " + HARD  # the first piece begins with a space


class Saying:
    """An engine that always answers the same."""

    max_length = 512

    def __init__(self, text):
        self.stats, self._text = Stats(), text

    def run(self, requests, *, on_done):
        found = [Completion([1, 2], np.zeros(2), "eos", self._text) for _ in requests]
        for index, one in enumerate(found):
            on_done(index, one)
        return found

    def stream(self, *_, **__):
        yield from (" " + word for word in self._text[1:].split(" "))


@pytest.fixture
def saying_hard(monkeypatch):
    for module in (generate, chat_module):
        monkeypatch.setattr(module, "make_engine", lambda *_, **__: Saying(SHOWN))


def test_answers_are_printed_as_they_are(saying_hard, model, tmp_path, capsys):
    tulu("generate", "--model", model, "--prompt", "x")
    assert capsys.readouterr().out == SHOWN + "\n"
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 2)
    tulu("generate", "--model", model, "--input", tmp_path / "in.jsonl")
    assert capsys.readouterr().out == (SHOWN + "\n") * 2
    tulu("generate", "--model", model, "--prompt", "x", "--output", tmp_path / "out.jsonl")
    assert rows(tmp_path / "out.jsonl")[0]["output"] == SHOWN


def test_chat_shows_answers_as_they_are(saying_hard, monkeypatch, capsys, model):
    out = chat(monkeypatch, capsys, model, "[/x] :smile:\n/[bold]x\n")
    assert f"you> {SHOWN}\nyou> unknown command /[bold]x" in out


@pytest.mark.parametrize("stdin", [None, "closed"])
def test_chat_without_standard_input_ends(saying_hard, monkeypatch, capsys, model, stdin):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stdin", None if stdin is None else closed)
    assert tulu("chat", "--model", model) == 0
    assert "/help lists commands" in capsys.readouterr().out


def test_chat_says_which_line_is_not_utf_8(model, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9\nHi\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    assert tulu("chat", "--model", model, *SHORT) == 0
    first, second = capsys.readouterr().out.split("you> ")[1:3]
    assert "message content is not valid Unicode" in first
    assert second.strip() and "Unicode" not in second


def test_settings_that_do_nothing_are_said(saying_hard, model, capsys):
    tulu("generate", "--model", model, "--prompt", "x", "--top_p", "0.5")
    assert "--top_p, --top_k and --seed do nothing without --temperature" in capsys.readouterr().err
    tulu("generate", "--model", model, "--prompt", "x", "--top_p", "0.5", "--temperature", "1")
    assert "nothing" not in capsys.readouterr().err


def test_weights_of_a_run_that_are_no_numbers(model, tmp_path):
    config, params = hf.load(model)
    params["layers"]["mlp"]["up"][1, 2, 3] = np.nan
    save_params(tmp_path / "run", params, {"model": config_to_dict(config)})
    shutil.copytree(model, tmp_path / "run" / "tokenizer")
    message = r"weights are not finite numbers - got 1 NaN and 0 infinite of 768 in layers/mlp/up"
    with pytest.raises(CheckpointError, match=message):
        tulu("generate", "--model", tmp_path / "run", "--prompt", "x")
