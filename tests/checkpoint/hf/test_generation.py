"""generation_config.json: stop tokens joined to the model's, everything else kept as it was."""

import dataclasses
import json

import pytest

from tulu_jax.checkpoint import hf
from tulu_jax.checkpoint.hf.generation import (
    all_stops,
    asked_for,
    generation_config,
    read_generation,
)
from tulu_jax.errors import CheckpointError

from .small import CONFIG, edit_config, random_params, write_folder
from .small_families import OPT

LLAMA3 = {
    "bos_token_id": 1, "eos_token_id": [7, 8, 9], "do_sample": True, "temperature": 0.6,
    "top_p": 0.9, "transformers_version": "4.40.0", "new_trick": {"x": [1]},
}  # fmt: skip


def write(folder, fields):
    (folder / "generation_config.json").write_text(json.dumps(fields))
    return hf.open_folder(folder)


def test_kept_by_export_with_all_stops(tmp_path):
    opened = write(write_folder(tmp_path / "x"), LLAMA3 | {"_from_model_config": True})
    assert opened.generation == LLAMA3
    assert all_stops(CONFIG, opened.generation) == (2, 7, 8, 9)
    hf.save(tmp_path / "y", CONFIG, random_params(CONFIG), generation=opened.generation)
    written = json.loads((tmp_path / "y" / "generation_config.json").read_text())
    assert written == LLAMA3 | {"eos_token_id": [2, 7, 8, 9], "pad_token_id": None}
    assert json.loads((tmp_path / "y" / "config.json").read_text())["eos_token_id"] == 2


def test_transformers_stops_where_we_do(tmp_path):
    transformers = pytest.importorskip("transformers")
    write_folder(tmp_path / "x", generation=LLAMA3)
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "x")
    assert theirs.eos_token_id == [2, 7, 8, 9]
    assert (theirs.do_sample, theirs.temperature, theirs.top_p) == (True, 0.6, 0.9)


@pytest.mark.parametrize(
    ("eos", "stops"),
    [(None, (2,)), ([], (2,)), (2, (2,)), (5, (2, 5)), ([5, 2], (2, 5)), ([5, 5], (2, 5))],
)
def test_stop_tokens(tmp_path, eos, stops):
    opened = write(write_folder(tmp_path / "x"), {"eos_token_id": eos})
    assert all_stops(opened.config, opened.generation) == stops
    assert all_stops(OPT, {"eos_token_id": [5, 7]}) == (2, 5, 7)


def test_tokens_that_only_the_old_file_names_are_kept():
    without = dataclasses.replace(CONFIG, bos_id=None, pad_id=None)
    kept = {"bos_token_id": 3, "pad_token_id": 4}
    assert generation_config(without, kept) == {**kept, "eos_token_id": 2}


def test_tokens_that_it_names_otherwise_than_config_json_are_kept_and_said(tmp_path):
    """The export wrote those of config.json in their place, and nothing was said."""
    kept = {"bos_token_id": 3, "eos_token_id": 7, "pad_token_id": 4}
    edit_config(write_folder(tmp_path / "x"), pad_token_id=0)
    opened = write(tmp_path / "x", kept)
    file, kept_there = "generation_config.json and {} in config.json", "each is kept where it is"
    assert opened.notes == [
        f"eos_token_id is 7 in {file.format(2)}: each of them ends a text",
        f"bos_token_id is 3 in {file.format(1)}: {kept_there}",
        f"pad_token_id is 4 in {file.format(0)}: {kept_there}",
    ]
    config, params = opened.config, random_params(CONFIG)
    hf.save(tmp_path / "y", config, params, generation=opened.generation)
    written = json.loads((tmp_path / "y" / "generation_config.json").read_text())
    assert written == kept | {"eos_token_id": [2, 7]}
    fields = json.loads((tmp_path / "y" / "config.json").read_text())
    assert [fields[name] for name in kept] == [1, 2, 0]
    again = hf.open_folder(tmp_path / "y")
    assert again.generation == written and len(again.notes) == 3


@pytest.mark.parametrize("fields", [{}, {"bos_token_id": 1, "eos_token_id": [2, 2]}, {
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": -1}])  # fmt: skip
def test_nothing_is_said_of_the_same_tokens(tmp_path, fields):
    opened = write(write_folder(tmp_path / "x"), fields)
    assert not opened.notes
    written = generation_config(CONFIG, opened.generation)
    assert written == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eos_token_id": 50}, "eos_token_id names a token that the model does not have - got 50"),
        ({"eos_token_id": [2, 128009]}, r"got 128009 at .*generation_config.json .* below vocab"),
        (
            {"eos_token_id": "</s>"},
            r"eos_token_id is malformed - got '</s>' at .*generation_config",
        ),
        ({"eos_token_id": -1}, "eos_token_id is malformed"),
        ({"pad_token_id": 50}, r"pad_token_id names a token .* got 50 at .*generation_config.json"),
        ({"bos_token_id": 50}, "bos_token_id names a token that the model does not have - got 50"),
        ({"bos_token_id": "<s>"}, r"bos_token_id is malformed - got '<s>' at .*generation_config"),
        ([], "generation_config.json is not a JSON object - got a JSON list"),
    ],
)
def test_what_is_refused(tmp_path, fields, message):
    write_folder(tmp_path / "x")
    with pytest.raises(CheckpointError, match=message):
        write(tmp_path / "x", fields)


@pytest.mark.parametrize(
    ("fields", "sampled", "found"),
    [
        (LLAMA3, False, {"temperature": 0.6, "top_p": 0.9}),
        (LLAMA3, True, {}),
        ({"temperature": 0.6}, False, {}),  # transformers is greedy then
        ({"do_sample": True, "temperature": 1.0}, False, {}),
        ({"repetition_penalty": 1.1, "stop_strings": ["x"]}, True,
         {"repetition_penalty": 1.1, "stop_strings": ["x"]}),
        ({"num_beams": 1, "min_length": 0, "new_trick": 3}, False, {}),
    ],
)  # fmt: skip
def test_what_is_asked_for_besides_stop_tokens(fields, sampled, found):
    assert asked_for(fields, sampled=sampled) == found


def test_a_folder_without_the_file(tmp_path):
    (write_folder(tmp_path / "x") / "generation_config.json").unlink()
    assert read_generation(tmp_path / "x", CONFIG) == {}


def test_stops_of_config_json_stay_there(tmp_path):
    edit_config(write_folder(tmp_path / "x"), eos_token_id=[2, 11])
    opened = hf.open_folder(tmp_path / "x")
    assert opened.config.stop_ids == (2, 11) == all_stops(opened.config, opened.generation)
