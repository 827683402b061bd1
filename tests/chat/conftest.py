"""A small tokenizer for the tests of this room, trained on the spot in a fraction of a second."""

from pathlib import Path

import pytest

from tulu_jax.chat import Tokenizer, load_tokenizer

from .small import train


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    return train()


@pytest.fixture
def folder(tmp_path: Path, model_bytes: bytes) -> Path:
    """A tokenizer folder that holds nothing but the model."""
    (tmp_path / "tokenizer.model").write_bytes(model_bytes)
    return tmp_path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, model_bytes: bytes) -> Tokenizer:
    """The small tokenizer, encoding `hf`."""
    path = tmp_path_factory.mktemp("small")
    (path / "tokenizer.model").write_bytes(model_bytes)
    return load_tokenizer(path)


@pytest.fixture(scope="session")
def small_paper(small: Tokenizer) -> Tokenizer:
    return load_tokenizer(small.path, "paper")


@pytest.fixture(scope="session")
def llama(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "tokenizers" / "llama")


@pytest.fixture(scope="session")
def stories(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "models" / "stories260k")
