"""Where compiled programs are kept."""

import jax
import jax.numpy as jnp
import pytest
from buckets import BOTH, WRITES

from tulu_jax.errors import ConfigError
from tulu_jax.parallel.compile_cache import NEVER_S, use_compilation_cache

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def settings():
    before = {name: getattr(jax.config, name) for name in NAMES}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()


def test_programs_are_kept_where_the_variable_says(settings, monkeypatch, tmp_path):
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.setenv("TULU_CACHE_DIR", str(tmp_path / "kept"))
    use_compilation_cache()
    compilation_cache.reset_cache()  # the tests' own folder is open already
    jax.config.update(NAMES[1], 0.0)  # this one compiles in less than half a second
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(7)).block_until_ready()
    assert list((tmp_path / "kept").glob("jit_*-cache"))


def test_by_default_it_is_in_the_home_folder(settings, monkeypatch, tmp_path):
    monkeypatch.delenv("TULU_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / ".cache" / "tulu_jax")


def test_empty_keeps_nothing(settings, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("TULU_CACHE_DIR", "")
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize(("own", "kept"), [(None, 0.5), ("7", 3.0)])
def test_jaxs_own_variable_says_what_is_worth_keeping(settings, monkeypatch, tmp_path, own, kept):
    """JAX has read it when it was imported; what it made of it then stays."""
    monkeypatch.setenv("TULU_CACHE_DIR", str(tmp_path))
    jax.config.update(NAMES[1], 3.0)
    monkeypatch.delenv(NAMES[1].upper(), raising=False)
    if own:
        monkeypatch.setenv(NAMES[1].upper(), own)
    use_compilation_cache()
    assert getattr(jax.config, NAMES[1]) == kept


@BOTH
def test_a_bucket_that_may_only_be_read_is_read_and_said_once(
    settings, monkeypatch, bucket, storage
):
    monkeypatch.setenv("TULU_CACHE_DIR", f"{bucket}/programs")
    storage.fault(p403=1, match=WRITES)
    said = []
    use_compilation_cache(said.append)
    assert jax.config.jax_compilation_cache_dir == f"{bucket}/programs"
    assert getattr(jax.config, NAMES[1]) == NEVER_S
    (line,) = said
    assert line.startswith(
        "TULU_CACHE_DIR, compiled programs: new ones are not kept: no permission"
    )
    assert bucket.files() == {}


@BOTH
def test_a_bucket_that_cannot_be_read_is_left_alone(settings, monkeypatch, bucket, storage):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("TULU_CACHE_DIR", f"{bucket}/programs")
    said = []
    for fault in ("p403", "p404", "p401"):
        storage.calm()
        storage.fault(**{fault: 1})
        use_compilation_cache(said.append)
    storage.calm()
    assert jax.config.jax_compilation_cache_dir == before
    for line, words in zip(said, ("no permission", "no such bucket", "nobody is"), strict=True):
        assert f"none are kept: {words}" in line
    use_compilation_cache(said.append)
    assert len(said) == 3 and jax.config.jax_compilation_cache_dir == f"{bucket}/programs"
    assert bucket.files() == {}


def test_an_address_that_is_none_is_refused(settings, monkeypatch):
    monkeypatch.setenv("TULU_CACHE_DIR", "gs:/bucket/programs")
    with pytest.raises(ConfigError, match="TULU_CACHE_DIR is not an address of a bucket"):
        use_compilation_cache()
