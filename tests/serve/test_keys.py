"""Where keys come from, and that no message shows one."""

import pytest

from tulu_jax.errors import ConfigError
from tulu_jax.serve.keys import read_keys


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys.txt"
    path.touch(mode=0o600)
    return path


def test_keys_of_a_file_and_of_the_environment(file):
    file.write_text("# of the lab\nfirst-key-123\n\n second-key-456 \n")
    assert read_keys(file, {}) == ["first-key-123", "second-key-456"]
    both = read_keys(file, {"TULU_API_KEY": "third-key-789"})
    assert both == ["first-key-123", "second-key-456", "third-key-789"]
    assert read_keys(None, {}) == []


@pytest.mark.parametrize("first", [b"# of the lab\r\n", b""])
def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_a_key(file, first):
    file.write_bytes(b"\xef\xbb\xbf" + first + b"first-key-123\r\nsecond-key-456\r\n")
    assert read_keys(file, {}) == ["first-key-123", "second-key-456"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(file, mode):
    file.write_text("first-key-123\n")
    file.chmod(mode)
    message = f"key file can be read by others - got mode {mode:o} at .* - chmod 600"
    with pytest.raises(ConfigError, match=message):
        read_keys(file, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "key file has no keys"),
        (b"\xff\n", "key file cannot be read - got bytes that are no UTF-8"),
        (b"good-key-123\nshort\n", r"key is impossible - got 5 characters at .*keys\.txt:2"),
        (b"with space inside", "key is impossible - got 17 characters"),
        ("schlüssel-123".encode(), "key is impossible"),
    ],
)
def test_files_without_usable_keys(file, content, message):
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as met:
        read_keys(file, {})
    assert "short" not in str(met.value) and "space" not in str(met.value).split("expected")[0]


def test_no_file_and_no_key(tmp_path):
    with pytest.raises(ConfigError, match="key file cannot be read - got No such file"):
        read_keys(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="got 0 characters at the environment's TULU_API_KEY"):
        read_keys(None, {"TULU_API_KEY": " "})
