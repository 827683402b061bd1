"""Models of the Hub, by a stand-in of its API on this machine."""

import pytest

from places.hub_server import Hub
from tulu_jax.places import StorageError, local_folder, readable, user_place
from tulu_jax.places import hub as hubs


@pytest.fixture
def hub(monkeypatch, tmp_path):
    found = Hub()
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hubs._download.cache_clear()
    yield found
    hubs._download.cache_clear()
    found.close()


def named(text):
    return user_place(text, hub=True)


def test_a_model_is_downloaded_once_to_the_cache_of_the_hub(hub):
    files = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}
    hub.models["org/small"] = {**files, "pytorch_model.bin": b"twice", "image.png": b"no"}
    folder = readable("hf://org/small")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert folder.parents[1].name == "models--org--small"
    assert local_folder("hf://org/small") == folder
    assert readable(named(f"hf://org/small@{hub.sha('org/small')}")) == folder
    hubs._download.cache_clear()
    asked = len(hub.asked)
    assert readable("hf://org/small") == folder
    assert not [path for way, path in hub.asked[asked:] if way == "GET" and "resolve" in path]


def test_of_a_model_without_safetensors_torchs_files_are_taken(hub):
    hub.models["org/old"] = {"config.json": b"{}", "pytorch_model.bin": b"weights"}
    assert (readable("hf://org/old") / "pytorch_model.bin").read_bytes() == b"weights"


def test_what_the_hub_refuses_is_told_in_our_words(hub, monkeypatch):
    hub.models |= {"org/closed": {"config.json": b"{}"}, "org/open": {"config.json": b"{}"}}
    hub.gated.add("org/closed")
    for name, words in {
        "org/nothing": r"no such model on the Hub, or none that may be seen - got .* hf auth login",
        "org/closed": "given to those only who asked for it .* agree to its terms on its page",
        "org/open@nowhere": "no such revision on the Hub",
    }.items():
        with pytest.raises(StorageError, match=words):
            readable(f"hf://{name}")


def test_a_token_is_the_environments(hub, monkeypatch):
    hub.models["org/own"] = {"config.json": b"{}", "model.safetensors": b""}
    hub.private.add("org/own")
    with pytest.raises(StorageError, match="none that may be seen"):
        readable("hf://org/own")
    monkeypatch.setenv("HF_TOKEN", "right")
    assert (readable("hf://org/own") / "config.json").is_file()


def test_a_folder_is_pushed_and_nothing_overwritten(hub, monkeypatch, tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(
        StorageError, match=r"no permission to write - got .* a token that may write"
    ):
        hubs.push(folder, named("hf://org/new"), private=True)
    monkeypatch.setenv("HF_TOKEN", "right")
    assert hubs.push(folder, named("hf://org/new"), private=True).endswith("/org/new")
    assert hub.models["org/new"] == {"config.json": b"{}"} and "org/new" in hub.private
    with pytest.raises(
        StorageError, match="the model is there already - got 1 files, such as conf"
    ):
        hubs.push(folder, named("hf://org/new"), private=False)
