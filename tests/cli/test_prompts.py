"""Lines of prompts: what reaches the model, what comes back, what is refused and where."""

import json

import pytest

from tulu_jax.chat import encode_prompt, load_tokenizer
from tulu_jax.cli.prompts import (
    NOT_DONE,
    NOT_SEEN,
    Prompt,
    not_seen,
    prompt_tokens,
    read_prompts,
)
from tulu_jax.errors import ConfigError, DataError

from .small_model import tulu, write_model

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "hf")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "in.jsonl"


def write(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_parts_of_text_are_joined(model, file):
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    row = {"messages": [{"role": "user", "content": parts}], "n_th": 1e308}
    write(file, row, {"messages": [USER]}, {"messages": [USER, {**ANSWER, "content": parts}]})
    tokenizer = load_tokenizer(model)
    prompts = read_prompts(file, drop_last_answer=True)
    ids = [list(prompt_tokens(prompt, tokenizer, raw=False)[0]) for prompt in prompts]
    assert ids == [list(encode_prompt([USER], tokenizer))] * 3
    assert prompts[0].fields == row  # the line comes back as it was


def answers(model, file, *words):
    out = file.with_name("out.jsonl")
    words = ("--input", file, "--output", out, "--max_new_tokens", "3", *words)
    assert tulu("generate", "--model", model, *words) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\n{"prompt": ', r"line is not JSON - got .*in.jsonl line 2"),
        (b'{"prompt": "\xff"}', "line is not JSON .* - fix the line"),
        (
            b"prompt\nWhy?\n",
            r"line is not JSON .* - write each prompt as {\"prompt\": \"...\"} in a",
        ),
        (
            b'{"prompt": "a", "x": 1e400}',
            r"number that is too great .* - got 1e400 at .* line 1 - ",
        ),
        (
            b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
            r"message has a part that is not text - got part of type 'image_url' at .* message 0",
        ),
        (
            b'{"messages": [{"role": "user", "content": ["a"]}]}',
            r"message has a part that is not text - got part of type 'str' at .* message 0",
        ),
        (b"[]", r"line holds no prompt - got list at .* - write one object a line: jq -c '.\[\]'"),
        (
            b'[\n{"prompt": "a"}\n]',
            r"line is not JSON .* one object a line: jq -c '.\[\]' OLD > NEW",
        ),
        (b'{"text": "a"}', "line holds no prompt"),
        (b'{"prompt": 3}', "prompt is not text - got int"),
        (b'{"messages": []}', r"messages are empty - at .*in.jsonl line 1"),
        (
            b'\n{"messages": [{"role": "bot", "content": "x"}]}',
            r"unknown role .* line 2, message 0",
        ),
        (b"\n", "input is empty"),
        (b"", "input is empty"),
        (b"\x1f\x8b\x08\x00", "input is not text - got a gzip file .* in UTF-8 - unpack it"),
        (b"\xff\xfe{\x00", "input is not text - got UTF-16 text"),
        (b"version https://git-lfs.github.com/spec/v1", "input is not text - got a Git LFS poin"),
        (
            b'{"prompt": "a", "prompt": "b"}',
            "line is not JSON - got the field prompt twice at .* line 1",
        ),
        (b'{"prompt": "a", "messages": []}', "line holds both messages and prompt"),
        (b"[" * 100_000, "line is not JSON"),
        (b'{"prompt": "a"}\n\n{"prompt": "\\ud800"}', "not valid Unicode - .* line 3, message 0"),
        (
            b'{\n "prompt": "a"\n}',
            "line is not JSON .* one JSON object a line .* jq -c . OLD > NEW",
        ),
    ],
)
def test_bad_input(file, content, message):
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prompts(file)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="input cannot be read - got No such file"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="input cannot be read - got Is a directory"):
        read_prompts(tmp_path)


def test_a_byte_order_mark_and_windows_lines_are_no_fault(model, file):
    file.write_bytes(b"\xef\xbb\xbf" + b'{"prompt": "a"}\r\n\r\n{"prompt": "a"}\r\n')
    first, second = answers(model, file)
    assert first == second and first["prompt"] == "a"


@pytest.mark.parametrize("name", ["output", "output_tokens", "stopped"])
def test_own_answers_are_not_overwritten(model, file, name):
    write(file, {"prompt": "a", name: "mine"})
    message = (
        rf'a field {name} of its own, which the answer would overwrite - got "mine" at .*line 1'
    )
    with pytest.raises(DataError, match=message):
        read_prompts(file)
    row = answers(model, file, "--answer_field", "mine")[0]
    assert row[name] == "mine"
    assert set(row) == {"prompt", name, "mine", "mine_tokens", "mine_stopped"}


@pytest.mark.parametrize("name", sorted(NOT_SEEN))
def test_what_the_model_would_not_see_is_refused(file, name):
    write(file, {"prompt": "a", name: None}, {"prompt": "a", name: []}, {"prompt": "a", name: "x"})
    with pytest.raises(
        DataError, match=rf'line has {name}, which the model would .* - got "x" .* 3'
    ):
        read_prompts(file)


@pytest.mark.parametrize("name", ["tool_calls", "images", "tool_call_id"])
def test_so_is_what_a_message_has(file, name):
    write(file, {"messages": [USER, {**ANSWER, name: ["x"]}, USER]})
    with pytest.raises(DataError, match=rf"message has {name}, .* at .* line 1, message 1"):
        read_prompts(file)
    write(file, {"messages": [{**USER, name: None, "weight": 0}]})
    assert len(read_prompts(file)) == 1


def test_settings_of_a_line_are_refused(file):
    write(file, {"prompt": "a", "temperature": 0.5})
    with pytest.raises(DataError, match=r"line has temperature, .* give it as --temperature"):
        read_prompts(file)

    write(file, {"prompt": "a", "temperature": 0})  # which is not what --temperature 0.7 is
    with pytest.raises(DataError, match=r"line has temperature, .* got 0 at"):
        read_prompts(file)


@pytest.mark.parametrize("name", sorted(NOT_DONE))
def test_settings_of_other_programs_are_refused(file, name):
    write(file, {"prompt": "a", name: None}, {"prompt": "a", name: 2})
    with pytest.raises(DataError, match=rf"line has {name}, which this command does not do .* 2"):
        read_prompts(file)


def test_fields_that_the_model_does_not_see_are_named(model, file, capsys):
    seen = {"messages": [USER, {**ANSWER, "reasoning_content": "hm", "weight": 0}, USER]}
    write(file, {"prompt": "a", "context": "C", "id": 3}, {"prompt": "a", "context": "D"}, seen)
    row = answers(model, file)[0]
    assert row["context"] == "C"
    said = capsys.readouterr().err
    assert f"field 'context' is not seen by the model: 2 times, first at {file} line 1\n" in said
    assert "message field 'reasoning_content' is not seen by the model: 1 time, first at" in said
    assert "'id'" not in said and "weight" not in said
    many = Prompt({"prompt": "a", **{f"x{i}": i + 1 for i in range(20)}}, "here")
    assert not_seen([many])[-1] == "8 fields more are not seen by the model"


def test_other_fields_come_back(model, file):
    fields = {"prompt": "a", "id": 7, "meta": {"x": [1]}, "ünï": None, "surrogate": "\ud800"}
    row = answers(model, write(file, fields))[0]
    assert {name: row[name] for name in fields} == fields


def test_an_answer_at_the_end_is_refused_or_not_shown(model, file, capsys):
    write(file, {"messages": [USER]}, {"messages": [USER, ANSWER]})
    message = (
        r"ends with an answer, which the model would see .* line 2, message 1 .*--drop_last_an"
    )
    with pytest.raises(DataError, match=message):
        read_prompts(file)
    first, second = answers(model, file, "--drop_last_answer")
    assert first["output"] == second["output"]
    assert second["messages"] == [USER, ANSWER], "the reference stays with its line"
    assert "the last answer is not shown in 1 of 2 conversations" in capsys.readouterr().err
    write(file, {"messages": [USER]})
    answers(model, file, "--drop_last_answer", "--overwrite")
    assert "note --drop_last_answer does nothing: no line ends" in capsys.readouterr().err
    write(file, {"messages": [{"role": "system", "content": "Be brief."}]})
    with pytest.raises(DataError, match=r"ends with a system message.* at .* line 1, message 0"):
        read_prompts(file)
    write(file, {"messages": [ANSWER]})
    with pytest.raises(DataError, match="conversation is one answer, to nothing"):
        read_prompts(file, drop_last_answer=True)


def test_tokens_of_a_prompt(model):
    tokenizer = load_tokenizer(model)
    wanted = encode_prompt([USER], tokenizer)
    for fields in ({"prompt": "Why?"}, {"messages": [USER]}, {"messages": [USER, ANSWER]}):
        found, dropped = prompt_tokens(Prompt(fields, "x"), tokenizer, raw=False)
        assert (list(found), dropped) == (list(wanted), len(fields.get("messages", [])) == 2)
    found, _ = prompt_tokens(Prompt({"prompt": "Why?"}, "x"), tokenizer, raw=True)
    assert found == [*tokenizer.start_ids, *tokenizer.encode_text("Why?")]
    with pytest.raises(DataError, match="line has messages, which --raw does not take - at x"):
        prompt_tokens(Prompt({"messages": [USER]}, "x"), tokenizer, raw=True)


def test_a_prompt_that_is_too_long_is_named_and_leaves_nothing(model, file):
    write(file, {"prompt": "a"}, {"prompt": "word " * 300})
    message = (
        r"prompt leaves no room for an answer .* at .*in.jsonl line 2 .* fewer than max_length"
    )
    with pytest.raises(DataError, match=message):
        answers(model, file)
    assert sorted(path.name for path in file.parent.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--raw", "--chat_template", "llama2"],
            "--chat_template does nothing .* it without --raw",
        ),
        (["--drop_last_answer"], "--drop_last_answer does nothing here - expected it with --input"),
        (["--answer_field", "x"], "--answer_field does nothing here - expected it with --input or"),
        (
            ["--overwrite"],
            "--overwrite does nothing here - expected it with --output - leave it out",
        ),
    ],
)
def test_flags_that_would_do_nothing(model, words, message):
    with pytest.raises(ConfigError, match=message):
        tulu("generate", "--model", model, "--prompt", "a", *words)


def test_outputs_that_cannot_be(model, file, tmp_path):
    write(file, {"prompt": "a"})
    before = file.read_text()
    words = ("generate", "--model", model, "--input", file, "--output")
    with pytest.raises(ConfigError, match="output would replace the input - at"):
        tulu(*words, file, "--overwrite")
    partial = file.rename(tmp_path / "x.jsonl.partial")
    with pytest.raises(ConfigError, match="output would replace the input - at"):
        tulu("generate", "--model", model, "--input", partial, "--output", tmp_path / "x.jsonl")
    assert partial.read_text() == before
    partial.rename(file)
    with pytest.raises(ConfigError, match="output is a folder - at"):
        tulu(*words, tmp_path, "--overwrite")
    with pytest.raises(ConfigError, match="output cannot be written - got no such folder"):
        tulu(*words, tmp_path / "no" / "out.jsonl")
    with pytest.raises(ConfigError, match="--answer_field is no name - got 'a b'"):
        tulu(*words, tmp_path / "out.jsonl", "--answer_field", "a b")
    (tmp_path / "out.jsonl.partial").mkdir()
    with pytest.raises(ConfigError, match="output cannot be written - got Is a directory"):
        tulu(*words, tmp_path / "out.jsonl")
