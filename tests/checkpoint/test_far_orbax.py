"""Orbax writes to s3:// where it can be told how, and is refused where it cannot."""

import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from tulu_jax.checkpoint import far_orbax
from tulu_jax.errors import CheckpointError
from tulu_jax.places import Address

RUN = Address("s3", "bucket", "run")
WORDS = r"this version of Orbax cannot write checkpoints to s3:// - got orbax-checkpoint [\d.]+: "


@pytest.fixture
def anew():
    far_orbax._allow_s3.cache_clear()
    yield
    far_orbax._allow_s3.cache_clear()


def test_an_orbax_without_these_names_is_refused_with_its_version(anew, monkeypatch):
    monkeypatch.delattr(tensorstore_utils, "_normalize_path")
    with pytest.raises(CheckpointError, match=WORDS + "AttributeError.* install that one, or set"):
        far_orbax.prepare_orbax(RUN)


def test_one_that_does_not_ask_them_is_refused_too(anew, monkeypatch):
    spec = {"driver": "file", "bucket": "", "path": "/here/s3:/bucket/a"}
    monkeypatch.setattr(
        tensorstore_utils, "build_kvstore_tspec", lambda *_, **__: spec | {"base": spec}
    )
    with pytest.raises(CheckpointError, match=WORDS + r"ValueError\(.it would write to"):
        far_orbax.prepare_orbax(RUN)


@pytest.mark.parametrize("name", ["run[1]", "a*b", "x#1", "what?"])
@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_names_that_would_be_patterns_are_refused(scheme, name):
    with pytest.raises(CheckpointError, match=r"a name that Orbax takes for a pattern - got .* at"):
        far_orbax.prepare_orbax(Address(scheme, "bucket", f"runs/{name}/checkpoints"))


def test_other_places_need_nothing(tmp_path):
    assert far_orbax.prepare_orbax(tmp_path) == {}
    assert far_orbax.prepare_orbax(Address("gs", "bucket", "run")) == {}
