"""Archives: what is taken out of them, and those that are damaged or mean harm."""

import gzip
import io
import random
import stat
import tarfile
import zipfile

import pytest

from tests.download.download_fixtures import BODY, Heard, quick, sha256, source, spec, tree
from tests.download.download_server import cut, lie
from tulu_jax.download.run import fetch, fetch_all
from tulu_jax.download.sources import plan
from tulu_jax.download.unpack import unpack
from tulu_jax.errors import DataError

TASKS = {f"master/tasks/task{n}.json": b'{"n": %d}' % n for n in range(5)}
FILES = {"master/README.md": b"hello", "master/splits/train.txt": b"task1\n", **TASKS}


def zipped(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as box:
        for name, content in files.items():
            box.writestr(name, content)
    return out.getvalue()


def tarred(files, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as box:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            body = b"" if content is info else content
            info.size = len(body)
            box.addfile(info, io.BytesIO(body))
    return out.getvalue()


def get(server, tmp_path, body, packed, *members, options=None, progress=None, **more):
    """Serves an archive and fetches members of it as (filename, member)."""
    how = {name: more.pop(name) for name in ("faults",) if name in more}
    url = server.add("/box", body, **how)
    sources = [source(url, name, packed=packed, member=m, **more) for name, m in members]
    return fetch(spec(*sources), tmp_path, options=options or quick(), progress=progress)


def test_gzip(server, tmp_path):
    folder = get(server, tmp_path, gzip.compress(BODY), "gz", ("a.jsonl", None))
    assert (folder / "a.jsonl").read_bytes() == BODY
    assert tree(folder).keys() == {"a.jsonl", "checksums.json"}


@pytest.mark.parametrize(
    ("packed", "make"),
    [
        ("zip", zipped),
        ("zip", lambda files: zipped(files, zipfile.ZIP_LZMA)),
        ("tar", tarred),
        ("tar", lambda files: tarred(files, "w")),
        ("tar", lambda files: tarred(files, "w:xz")),
    ],
)
def test_folders_and_files_of_one_archive(server, tmp_path, packed, make):
    folder = get(
        server, tmp_path, make(FILES), packed,
        ("tasks", "master/tasks"), ("splits/train.txt", "master/splits/train.txt"),
    )  # fmt: skip
    found = tree(folder)
    found.pop("checksums.json")
    assert found == {
        name.removeprefix("master/"): FILES[name] for name in FILES if "RE" not in name
    }
    assert len(server.gets("/box")) == 1


def test_only_what_is_missing_is_taken_out(server, tmp_path):
    (tmp_path / "small" / "tasks").mkdir(parents=True)
    folder = get(
        server, tmp_path, zipped(FILES), "zip", ("tasks", "master/tasks"), ("R", "master/README.md")
    )
    assert tree(folder).keys() == {"R", "checksums.json"}


def test_the_only_file_needs_no_name(server, tmp_path):
    folder = get(server, tmp_path, zipped({"some/core.jsonl": BODY}), "zip", ("a.jsonl", None))
    assert (folder / "a.jsonl").read_bytes() == BODY


def test_without_a_member_all_is_taken(server, tmp_path):
    folder = get(server, tmp_path, zipped(FILES), "zip", ("all", None))
    assert tree(folder / "all") == FILES


def test_a_folder_is_held_to_its_record(server, tmp_path):
    members = ("tasks", "master/tasks")
    folder = get(server, tmp_path, zipped(FILES), "zip", members)
    get(server, tmp_path, b"", "zip", members)
    (folder / "tasks" / "task0.json").write_bytes(b"{}")
    with pytest.raises(DataError, match="a raw file is not what was fetched"):
        get(server, tmp_path, b"", "zip", members)


def test_an_archive_is_resumed_and_checked(server, tmp_path):
    body = gzip.compress(BODY)
    folder = get(
        server, tmp_path, body, "gz", ("a.jsonl", None), faults=[cut(9000)], sha256=sha256(body)
    )
    assert (folder / "a.jsonl").read_bytes() == BODY
    assert server.gets("/box")[-1]["Range"] == "bytes=9000-"


def test_a_damaged_archive_is_fetched_anew_once(server, tmp_path):
    heard = Heard()
    body = zipped(FILES)
    folder = get(
        server, tmp_path, body, "zip", ("R", "master/README.md"), faults=[lie(-50)], progress=heard
    )
    assert (folder / "R").read_bytes() == b"hello"
    assert "the archive is damaged - got File is not a zip file" in heard.notes[0]
    assert heard.notes[0].endswith("fetching it anew")


@pytest.mark.parametrize(
    ("packed", "body"),
    [
        ("gz", gzip.compress(BODY)[:-2000]),
        ("gz", gzip.compress(BODY)[:500] + b"\0\0\0\0" + gzip.compress(BODY)[504:]),
        ("gz", gzip.compress(BODY)[:-6] + b"\0" * 6),
        ("zip", zipped({"a.jsonl": BODY})[:-100]),
        ("zip", zipped({"a.jsonl": BODY}).replace(b"id", b"iX")),
        ("zip", zipped({"a.jsonl": BODY}, zipfile.ZIP_STORED).replace(b'"id": 7,', b'"id": 8,')),
        ("tar", tarred({"a.jsonl": BODY})[:-2000]),
        ("tar", tarred({"a.jsonl": BODY}, "w")[:50_000]),
        ("tar", b"no archive at all" * 99),
    ],
)  # fmt: skip
def test_damaged_archives(server, tmp_path, packed, body):
    with pytest.raises(DataError, match=r"the archive is damaged - got .+ at http://"):
        get(server, tmp_path, body, packed, ("a.jsonl", "a.jsonl"))
    assert len(server.gets("/box")) == 2 and tree(tmp_path) == {}


@pytest.mark.parametrize(("packed", "make"), [("zip", zipped), ("tar", tarred)])
def test_a_member_that_is_not_there(server, tmp_path, packed, make):
    with pytest.raises(DataError, match=r"does not hold what is wanted - got no a/b among master/"):
        get(server, tmp_path, make(FILES), packed, ("R", "master/README.md"), ("b", "a/b"))
    assert tree(tmp_path) == {}
    with pytest.raises(DataError, match=r"got no x among nothing: it is empty"):
        get(server, tmp_path, make({}), packed, ("x", "x"))


@pytest.mark.parametrize(
    "name", ["../evil", "master/tasks/../../../evil", "/evil", "C:\\evil", "a\\..\\evil", "C:evil"]
)
@pytest.mark.parametrize(("packed", "make"), [("zip", zipped), ("tar", tarred)])
def test_names_that_leave_the_folder(server, tmp_path, packed, make, name):
    body = make({**FILES, name: b"evil"})
    with pytest.raises(DataError, match=r"holds a name that leaves its folder - got '"):
        get(server, tmp_path, body, packed, ("tasks", "master/tasks"))
    assert tree(tmp_path) == {} and not list(tmp_path.parent.glob("evil"))


def link(kind):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, "../../../../etc/passwd"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_a_tar(server, tmp_path, kind):
    body = tarred({**FILES, "master/tasks/link": link(kind)})
    with pytest.raises(DataError, match=r"holds a link or device - got 'master/tasks/link'"):
        get(server, tmp_path, body, "tar", ("tasks", "master/tasks"))


def test_links_in_a_zip(server, tmp_path):
    info = zipfile.ZipInfo("master/tasks/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as box:
        box.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"holds a link or device"):
        get(server, tmp_path, out.getvalue(), "zip", ("tasks", "master/tasks"))


def test_links_elsewhere_are_no_matter(server, tmp_path):
    body = tarred({**FILES, "master/link": link(tarfile.SYMTYPE)})
    get(server, tmp_path, body, "tar", ("tasks", "master/tasks"))


@pytest.mark.parametrize("packed", ["gz", "zip", "tar"])
def test_bombs(server, tmp_path, packed):
    zeros = b"[" + b" " * (40 << 20)
    make = {"gz": lambda f: gzip.compress(f["x"]), "zip": zipped, "tar": tarred}[packed]
    with pytest.raises(DataError, match=r"far more than it should \(a zip bomb\?\) - got over .*"
                       r"expected at most 250 times its size"):  # fmt: skip
        get(server, tmp_path, make({"x": zeros}), packed, ("x", "x"))
    assert tree(tmp_path) == {}
    get(server, tmp_path, make({"x": zeros}), packed, ("x", "x"), options=quick(max_ratio=2000.0))


def test_a_name_twice(server, tmp_path):
    body = tarred({"a/x": b"1", "a/x/y": b"2"})
    with pytest.raises(DataError, match=r"the archive holds a name twice"):
        get(server, tmp_path, body, "tar", ("a", "a"))


def test_an_archive_with_a_password(server, tmp_path):
    body = bytearray(zipped({"a.jsonl": BODY}))
    body[6] |= 1  # the flag of the local header, then of the directory
    body[body.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match=r"the archive cannot be unpacked - got .*encrypted"):
        get(server, tmp_path, bytes(body), "zip", ("a.jsonl", "a.jsonl"))


def test_what_is_inside_is_looked_at(server, tmp_path):
    with pytest.raises(DataError, match=r"web page, .* at a.jsonl in http"):
        get(server, tmp_path, gzip.compress(b"<html>"), "gz", ("a.jsonl", None))
    with pytest.raises(DataError, match=r"another kind of file - got .*expected a gzip file"):
        get(server, tmp_path, BODY, "gz", ("a.jsonl", None))


@pytest.mark.parametrize("packed", ["gz", "zip", "tar"])
def test_archives_with_flipped_bytes(tmp_path, packed):
    """Either unpacked or refused in words; nothing is written elsewhere."""
    draw = random.Random(1)
    files = {"a/x.json": BODY[:3000], "a/y/z.json": BODY[:500]}
    make = {"gz": lambda f: gzip.compress(f["a/x.json"]), "zip": zipped, "tar": tarred}[packed]
    whole, refused = make(files), 0
    (tmp_path / "out").mkdir()
    for n in range(300):
        body = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        archive = tmp_path / "archive"
        archive.write_bytes(body[: draw.choice([len(body), draw.randrange(len(body))])])
        try:
            unpack(archive, packed, [("a", tmp_path / "out" / str(n))], at="here")
        except DataError:
            refused += 1
    assert refused > 200
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "out"}


def test_mirror_roots(server, tmp_path):
    """A folder or address with <dataset>/<filename>, packed or not, goes first."""
    url = "http://127.0.0.1:9/path/box.zip"
    wanted = (source(url, "tasks", packed="zip", member="master/tasks"),
              source(url, "R.md", packed="zip", member="master/README.md"))  # fmt: skip
    root = tmp_path / "mirror" / "small"
    root.mkdir(parents=True)
    (root / "box.zip").write_bytes(zipped(FILES))
    options = quick(retries=0, mirror_root=str(tmp_path / "mirror"))
    one = tree(fetch(spec(*wanted), tmp_path / "1", options=options))
    (root / "box.zip").unlink()
    (root / "tasks").mkdir()
    for name, content in TASKS.items():
        (root / "tasks" / name.rpartition("/")[2]).write_bytes(content)
    results = fetch_all(plan([spec(*wanted)], tmp_path / "2"), options=options)
    assert [r.status for r in results] == ["fetched", "failed"]
    assert "there is no such file - at" in str(results[1].error)
    (root / "R.md").write_bytes(b"hello")
    two = tree(fetch(spec(*wanted), tmp_path / "2", options=options))
    assert one.keys() == two.keys() and len(one) == 7
    three = quick(mirror_root=server.url("/m/"))
    server.add("/m/small/box.zip", zipped(FILES))
    assert tree(fetch(spec(*wanted), tmp_path / "3", options=three)).keys() == one.keys()


def test_plain_files_of_a_mirror_root(server, tmp_path):
    server.add("/m/small/a%20b.jsonl", BODY)
    wanted = source("http://127.0.0.1:9/x", "a b.jsonl", sha256=sha256(BODY))
    options = quick(retries=0, mirror_root=server.url("/m"))
    folder = fetch(spec(wanted), tmp_path, options=options)
    assert (folder / "a b.jsonl").read_bytes() == BODY


@pytest.mark.parametrize("name", ["../x", "a/../../x", ".download/x", "checksums.json", "a\\x", ""])
def test_file_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"dataset small has a source that leaves its folder"):
        plan([spec(source("http://127.0.0.1:9/", name))], tmp_path)


def test_what_is_planned_once(tmp_path):
    shared, other = source("http://h/a", "a"), source("http://h/b", "b")
    downloads = plan(
        [spec(shared), spec(shared, other), spec(source("http://h/", "/abs"))], tmp_path
    )
    assert [d.label for d in downloads] == ["small/a", "small/b"]
    archive = [source("http://h/z", name, packed="zip") for name in "cd"]
    assert [d.label for d in plan([spec(*archive)], tmp_path)] == ["small/c + 1"]
