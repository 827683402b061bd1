"""A small tokenizer for the tests of this room, trained on the spot in a fraction of a second."""

from pathlib import Path

import pytest

from tulu_jax.chat import Tokenizer, load_tokenizer

from . import small_bpe
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


@pytest.fixture(scope="session")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small tokenizer in Pythia's shape."""
    return load_tokenizer(small_bpe.neox(tmp_path_factory.mktemp("neox")))


@pytest.fixture(scope="session")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small tokenizer in OPT's shape, encoding `hf`."""
    return load_tokenizer(small_bpe.opt(tmp_path_factory.mktemp("opt")))


@pytest.fixture(scope="session")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small tokenizer in Llama 3's shape."""
    return load_tokenizer(small_bpe.llama3(tmp_path_factory.mktemp("llama3")))


@pytest.fixture(scope="session")
def pythia(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "tokenizers" / "pythia")


@pytest.fixture(scope="session")
def real_opt(shared: Path) -> Tokenizer:
    return load_tokenizer(shared / "tokenizers" / "opt")
