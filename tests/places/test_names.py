"""Addresses: what users may write, what is refused, and what an address is used for."""

import importlib.util
import os
from pathlib import Path

import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.places import Address, as_place, is_address, user_place
from tulu_jax.places import address as names


@pytest.fixture
def all_packages(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        names.importlib.util, "find_spec",
        lambda name: True if name == "gcsfs" else found(name),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("gs://bucket/runs/a", Address("gs", "bucket", "runs/a")),
        ("gs://bucket//runs/./a/", Address("gs", "bucket", "runs/a")),
        (" GS://bucket", Address("gs", "bucket")),
        ("gs://my-bucket.x/a b/ü", Address("gs", "my-bucket.x", "a b/ü")),
        ("hf://org/name-1.5", Address("hf", "org/name-1.5")),
        ("hf://org/name@main", Address("hf", "org/name@main")),
    ],
)
def test_an_address_is_what_its_user_means(all_packages, given, meant):
    found = user_place(given, hub=True)
    assert found == meant and as_place(str(found)) == meant and is_address(str(found))


@pytest.mark.parametrize("given", ["run", "./run/", "a/../run"])
def test_a_path_is_a_path(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    assert user_place(given) == tmp_path / "run"
    assert not is_address(given)


@pytest.mark.parametrize(
    "given",
    ["gs:/bucket/x", "gs://", "gs:///x", "gs:bucket/x", "gs://b/../x", "gs://B_ucket!/x", "hf://name",
     "hf://org/name/more", "gs://bucket/a\nb", Path("gs://bucket/x")],
)  # fmt: skip
def test_what_is_nearly_an_address_is_refused(all_packages, given):
    with pytest.raises(ConfigError, match=r"--model is not an address of a bucket or model - got"):
        user_place(given, name="--model", hub=True)


@pytest.mark.parametrize("given", ["gs://$BUCKET/x", "gs://bucket/${USER}/run"])
def test_a_variable_that_no_shell_has_replaced_is_refused(all_packages, given):
    with pytest.raises(ConfigError, match="MODEL_DIR holds a variable that no shell has replaced"):
        user_place(given, name="MODEL_DIR")


@pytest.mark.parametrize("given", ["az://c/x", "abfs:x", "hdfs://h/x", "gcs://b/x", "ftp://h/x"])
def test_other_schemes_are_refused(given):
    words = r"is an address that is not supported - got .* expected a local path or gs://"
    with pytest.raises(ConfigError, match=words):
        user_place(given)


def test_models_of_the_hub_are_for_reading_models():
    with pytest.raises(ConfigError, match="MODEL_DIR is an address that is not supported"):
        user_place("hf://org/name", name="MODEL_DIR")


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcs"), ("s3", "s3")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, scheme, extra):
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"not installed .* pip install 'tulu-jax\[{extra}\]'"):
        user_place(f"{scheme}://bucket/x")


@pytest.mark.parametrize(("other", "known"), [("s3a", "s3"), ("gcs", "gs")])
def test_other_names_of_a_scheme_are_told(other, known):
    with pytest.raises(ConfigError, match=f"not supported - got .* write {known}://"):
        user_place(f"{other}://bucket/x")


def test_names_are_taken_apart_as_those_of_paths():
    file = Address("gs", "bucket") / "runs" / "a/model.tar.gz"
    assert str(file) == "gs://bucket/runs/a/model.tar.gz"
    assert (file.name, file.stem, file.suffix) == ("model.tar.gz", "model.tar", ".gz")
    assert file.parent == Address("gs", "bucket", "runs/a")
    assert file.with_name("x").name == "x" and file.absolute() is file
    assert Address("gs", "bucket").parent == Address("gs", "bucket")
    assert Address("gs", "bucket").name == "bucket"
    assert file.is_relative_to(Address("gs", "bucket", "runs"))
    assert not file.is_relative_to(Address("gs", "bucket", "run"))
    assert file.relative_to(Address("gs", "bucket", "runs")) == "a/model.tar.gz"
    with pytest.raises(ValueError, match="does not lie below"):
        file.relative_to(Address("gs", "other"))


def test_an_address_is_never_taken_for_a_path_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = Address("gs", "bucket", "x")
    for wrong in (os.fspath, Path, open, os.makedirs):
        with pytest.raises(TypeError):
            wrong(address)
    with pytest.raises(ValueError, match=r"cannot be opened as 'w': use tulu_jax\.places\.writing"):
        address.open("w")
    assert not list(tmp_path.iterdir())
