"""`tulu data download --eval`: official files of benchmarks, from a server on this machine."""

import dataclasses
import gzip
import io
import json
import re
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest

from eval.harness.fingerprint import data_sha256
from eval.harness.registry import benchmarks, find_benchmark
from tests.download.download_fixtures import sha256, tree
from tests.download.download_server import Server, cut, page
from tests.eval.asking import context
from tulu_jax.cli.data import download as command
from tulu_jax.cli.main import main
from tulu_jax.download import benchmarks as catalogue
from tulu_jax.download.sources import is_url

PUBLISHED = catalogue.BENCHMARKS


def files_of(source):
    """A few files as they lie at an address of the catalogue: in an archive, by their names."""
    if source.packed is None:
        body = f'{{"file": "{source.filename}"}}'.encode()
        return {source.filename: gzip.compress(body) if source.filename.endswith("gz") else body}
    part = PurePosixPath(source.member)
    return {str(part / f"a_{part.name}.csv"): b"1,2\n", str(part / "deep/b.txt"): b"b"}


def archive(packed, files):
    out = io.BytesIO()
    if packed == "zip":
        with zipfile.ZipFile(out, "w") as box:
            for name, content in files.items():
                box.writestr(name, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as box:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            box.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(name="server")
def _server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("COLUMNS", "200")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def published(server, monkeypatch):
    """Puts the catalogue's files on the server; `files` says what lies at a source."""

    def run(files=files_of, *, checksums=True):
        found = []
        for benchmark in PUBLISHED:
            packed = {}
            for source in benchmark.sources:
                packed.setdefault(source.url, {}).update(files(source))
            sources = []
            for source in benchmark.sources:
                content = packed[source.url]
                form = source.packed
                body = archive(form, content) if form else content[source.filename]
                path = f"/{benchmark.name}/{PurePosixPath(source.url).name}"
                digest = source.sha256 and (sha256(body) if checksums else source.sha256)
                url = server.url(path) if path in server.files else server.add(path, body)
                sources.append(dataclasses.replace(source, url=url, sha256=digest))
            found.append(dataclasses.replace(benchmark, sources=tuple(sources)))
        monkeypatch.setattr(catalogue, "BENCHMARKS", tuple(found))

    return run


@pytest.fixture
def tulu(tmp_path, capsys, monkeypatch, one_parser):
    """Runs `tulu data download --eval` in an empty folder; its status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["data", "download", "--eval", *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_the_catalogue_has_the_data_of_every_benchmark():
    wanted = {benchmark.data.partition("/")[0] for benchmark in benchmarks().values()}
    assert [benchmark.name for benchmark in PUBLISHED] == command.BENCHMARK_NAMES.split(", ")
    assert wanted - {"tulu_demo"} == {benchmark.name for benchmark in PUBLISHED}  # that is made
    for source in (source for benchmark in PUBLISHED for source in benchmark.sources):
        assert is_url(source.url) and source.url.startswith("https://")
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
        assert (source.packed is None) == (source.member is None)
    assert len({s.filename for b in PUBLISHED for s in b.sources if b.name == "toxigen"}) == 14


def test_everything_comes_as_it_is_read(published, tulu, server, tmp_path):
    published()
    code, out = tulu()
    assert code == 0, out
    found = tree(tmp_path / "data" / "eval")
    expected = {
        "mmlu/dev/a_dev.csv", "mmlu/test/a_test.csv", "mmlu/dev/deep/b.txt", "gsm/test.jsonl",
        "bbh/bbh/a_bbh.csv", "bbh/cot-prompts/deep/b.txt", "truthfulqa/TruthfulQA.csv",
        "tydiqa/tydiqa-goldp-v1.1-dev.json", "tydiqa/tydiqa-goldp-v1.1-train.json",
        "codex_humaneval/HumanEval.jsonl.gz", "humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz",
        "toxigen/hate_trans.txt", "ifeval/input_data.jsonl", "xstest/xstest_prompts.csv",
    }  # fmt: skip
    assert expected <= set(found) and found["mmlu/dev/a_dev.csv"] == b"1,2\n"
    assert f"{sum(len(b.sources) for b in PUBLISHED)} of" in out and "in data/eval" in out
    assert len(server.gets("/mmlu/data.tar")) == 1  # one archive, two folders
    seen = len(server.seen)
    code, out = tulu()
    assert code == 0 and len(server.seen) == seen and "fetched" not in out


def test_names_and_another_folder(published, tulu, tmp_path):
    published()
    code, out = tulu("bbh", "gsm", "bbh", "--raw_dir", str(tmp_path / "there"))
    assert code == 0 and f"3 of 3 files, 32 bytes, in {tmp_path}/there" in out, out
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"bbh", "gsm"}
    assert not (tmp_path / "data").exists()


def test_names_that_do_not_exist(tulu):
    code, out = tulu("mmul")
    assert code == 2 and "unknown benchmark - got 'mmul'" in out and "did you mean mmlu?" in out
    code, out = tulu("--only", "gsm")
    assert code == 2 and "--only is of datasets - got 'gsm'" in out


def test_dry_run(published, tulu, tmp_path):
    published()
    code, out = tulu("mmlu", "gsm", "--dry_run")
    assert code == 0 and re.search(r"mmlu +dev, test +10.2 kB", out), out
    assert not (tmp_path / "data").exists()


def test_a_changed_file_is_refused_and_others_come(published, tulu, server, tmp_path):
    published()
    server.files["/gsm/test.jsonl"].body = b'{"other": 1}'
    server.files["/truthfulqa/TruthfulQA.csv"].faults = [page()] * 9
    code, out = tulu("gsm", "truthfulqa", "ifeval", "--retries", "0")
    assert (
        code == 2 and "gsm/test.jsonl: what was fetched is not the right file - got sha256" in out
    )
    assert "truthfulqa/TruthfulQA.csv: the answer is a web page, not the file" in out
    assert set(tree(tmp_path / "data/eval")) == {
        "ifeval/input_data.jsonl", "ifeval/checksums.json"
    }  # fmt: skip


def test_a_cut_archive_is_fetched_to_its_end(published, tulu, server, tmp_path):
    published()
    server.files["/mmlu/data.tar"].faults = [cut(700), cut(2000)]
    assert tulu("mmlu")[0] == 0
    assert (tmp_path / "data/eval/mmlu/test/deep/b.txt").read_bytes() == b"b"


@pytest.mark.parametrize("name", ["data/../../../out.csv", "/tmp/out.csv"])
def test_a_hostile_archive_is_refused(published, tulu, server, tmp_path, name):
    published()
    server.files["/mmlu/data.tar"].body = archive("tar", {"data/dev/a.csv": b"1", name: b"2"})
    code, out = tulu("mmlu", "--retries", "0")
    assert code == 2 and "the archive holds a name that leaves its folder" in out
    assert not list(tmp_path.rglob("*.csv"))


def test_an_archive_of_another_layout_is_told(published, tulu, server):
    published()
    server.files["/bbh/main.zip"].body = archive("zip", {"BIG-Bench-Hard-new/bbh/a.json": b"{}"})
    code, out = tulu("bbh", "--retries", "0")
    assert code == 2 and "the archive does not hold what is wanted" in out
    assert "BIG-Bench-Hard-main" in out


def test_where_files_came_from_is_no_data(published, tulu, tmp_path):
    published()
    tulu("mmlu")
    folder = tmp_path / "data/eval/mmlu"
    before = data_sha256(folder)
    (folder / "checksums.json").unlink()
    assert data_sha256(folder) == before
    (folder / "dev/a_dev.csv").write_text("2,2\n")
    assert data_sha256(folder) != before


@pytest.mark.slow
def test_the_real_files_are_read(shared, published, tulu, server, tmp_path):
    """The stored files, archived as published and held to the catalogue's checksums."""
    data = shared / "eval_data"

    def files(source):
        benchmark = next(b for b in PUBLISHED if source in b.sources)
        place = data / benchmark.name / source.filename
        if source.packed:
            return {
                f"{source.member}/{path.name}": path.read_bytes() for path in place.glob("*.*")
            } or {f"{source.member}/none.csv": b"0"}
        if not place.exists():  # of TydiQA's training file three languages are stored
            place = data / "tydiqa" / "tydiqa-goldp-v1.1-train.partial-en-ko-sw.json"
        return {source.filename: place.read_bytes()}

    published(files, checksums=False)
    code, out = tulu()
    assert code == 0, out
    counts = {}
    for name, benchmark in benchmarks().items():
        if name == "tulu_demo":
            continue
        more = {"languages": ("english", "korean", "swahili")} if name == "tydiqa" else {}
        options = benchmark.options(**more)
        folder = tmp_path / "data" / "eval" / benchmark.data
        counts[name] = len(find_benchmark(name).load(context(benchmark, folder, options)))
    assert counts["mmlu"] == 14_042 and counts["gsm"] == 1_319 and counts["bbh"] == 6_511
    assert counts["ifeval"] == 541 and counts["xstest"] == 450
    assert all(count > 160 for count in counts.values()), json.dumps(counts)
