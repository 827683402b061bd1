"""What tells models and data apart."""

from eval.harness.fingerprint import PIECE, PIECES, data_sha256, fingerprint


def test_a_changed_file_name_or_setting_changes_it(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    weights = tmp_path / "m" / "w"
    weights.write_bytes(b"\0" * 100)
    found = [fingerprint([tmp_path / "m"], dtype="float32")]
    found.append(fingerprint([tmp_path / "m"], dtype="bfloat16"))
    weights.write_bytes(b"\0" * 99 + b"\1")
    found.append(fingerprint([tmp_path / "m"], dtype="float32"))
    weights.rename(tmp_path / "m" / "v")
    found.append(fingerprint([tmp_path / "m"], dtype="float32"))
    assert len(set(found)) == 4
    assert fingerprint([tmp_path / "m"], dtype="float32") == found[-1]


def test_of_a_large_file_pieces_from_first_to_last_byte_count(tmp_path):
    size = PIECE * PIECES * 3
    file = tmp_path / "w"
    file.write_bytes(bytes(size))
    first = fingerprint([file])
    for at in (0, size - 1):
        data = bytearray(size)
        data[at] = 1
        file.write_bytes(data)
        assert fingerprint([file]) != first
    file.write_bytes(bytes(size + 1))
    assert fingerprint([file]) != first


def test_data_is_told_apart_by_every_byte_and_name(tmp_path):
    assert data_sha256(tmp_path / "none") is None
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("x")
    one = data_sha256(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    two = data_sha256(tmp_path / "d")
    (tmp_path / "d" / "b").write_text("y")
    assert len({one, two, data_sha256(tmp_path / "d"), data_sha256(tmp_path / "d" / "b")}) == 4
