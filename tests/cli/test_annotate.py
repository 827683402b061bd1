"""`tulu annotate`: its parts, one after the other, and what it refuses."""

import json
import re
import sqlite3

import pytest

from tests.eval.annotate import studies
from tulu_jax.cli.main import main

pytest.importorskip("argon2", reason="the extra annotate is not installed")


@pytest.fixture
def annotate(capsys, one_parser):
    def run(*arguments, status=0):
        assert main(["annotate", *map(str, arguments)]) == status
        return capsys.readouterr()

    return run


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "instances.jsonl"
    path.write_text("".join(json.dumps(line(i)) + "\n" for i in range(20)))
    return path


def line(i):
    sides = [{"model": m, "completion": f"{m} {i}"} for m in ("m", "n")]
    return {"id": f"t{i}", "prompt": f"p{i}", "completions": sides}


def test_make_user_export_import_report(annotate, lines, tmp_path):
    db = tmp_path / "s.db"
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({**line(99), "gold": {"preference": "m"}}) + "\n")
    text = annotate("make", "--db", db, "--instances", lines, "--overlap", 0.5, "--gold", gold).out
    assert "21 instances, 10 of them for 2 people, 1 gold: 30 annotations are wanted" in text
    link = annotate("user", "invite", "ada", "--admin", "--db", db, "--origin",
                    "https://lab.example/").out.strip()  # fmt: skip
    assert re.fullmatch(r"https://lab\.example/join/[\w-]{43}", link)
    assert annotate("user", "list", "--db", db).out == ""
    assert "there are no answers yet" in annotate("report", db, status=2).err
    rows = [{**line(i), "model_a": "m", "model_b": "n", "instance_id": f"t{i}",
             "completion_a": f"m {i}", "completion_b": f"n {i}", "evaluator": "eve",
             "completion_a_is_acceptable": "yes", "completion_b_is_acceptable": "no",
             "preference": "a-is-better", "timestamp": f"2023-05-0{i + 1} 10:00:00", "id": i,
             "comment": "=1+1"} for i in range(5)]  # fmt: skip
    sheet = tmp_path / "sheet.jsonl"
    sheet.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        "5 answers taken, 0 were there already, 0 blank"
        in annotate("import", sheet, "--db", db).out
    )
    assert "0 answers taken, 5 were there already" in annotate("import", sheet, "--db", db).out
    assert "eve" in annotate("user", "list", "--db", db).out
    for name in ("jsonl", "csv", "xlsx"):
        out = tmp_path / f"out.{name}"
        assert "5 answers" in annotate("export", "--db", db, "--output", out).out
        assert annotate("report", out).out == annotate("report", db).out
    text = annotate("report", db, "--html", tmp_path / "r.html").out
    assert "m against n: 5 instances" in text and "wins        m" in text
    page = (tmp_path / "r.html").read_text()
    assert page.startswith("<!doctype html>") and 'class="wins"' in page
    figures = json.loads(annotate("report", db, "--json").out)
    assert figures["pairs"][0]["wins"]["m"]["value"] == 1.0
    assert annotate("report", db, "--settled").out == text


def test_shutting_and_passwords(annotate, lines, tmp_path):
    db = tmp_path / "s.db"
    annotate("make", "--db", db, "--instances", lines, "--limit", 5)
    from eval.annotate.store.database import open_database

    studies.add_user(open_database(str(db)), "bob")
    annotate("user", "shut", "bob", "--db", db)
    assert re.search(r"bob +annotator +shut", annotate("user", "list", "--db", db).out)
    annotate("user", "open", "BOB", "--db", db)
    assert re.search(r"bob +annotator +open", annotate("user", "list", "--db", db).out)
    assert "/join/" in annotate("user", "password", "bob", "--db", db).out
    err = annotate("user", "shut", "tom", "--db", db, status=2).err
    assert "there is no such account - got 'tom'" in err
    err = annotate("user", "invite", "bob", "--db", db, status=2).err
    assert "name is taken - got 'bob'" in err
    err = annotate("user", "invite", "x", "--db", db, "--origin", "lab", status=2).err
    assert "--origin is no address of a server - got lab" in err


def test_two_folders_of_predictions(annotate, tmp_path):
    for name in "ab":
        rows = [
            {"id": i, "prompt": f"p{i}", "output": f"{name}{i}" if i else "the same"}
            for i in range(3 + (name == "b"))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    both = ["--predictions", tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    done = annotate("make", "--db", tmp_path / "s.db", *both, "--names", "one", "two")
    assert "3 instances" in done.out
    assert "1 instances were answered by one of the two only: left out" in done.err
    assert "1 of 3 instances have the same answer by both models: people are asked" in done.err
    with sqlite3.connect(tmp_path / "s.db") as database:
        found = database.execute("SELECT DISTINCT model_0, model_1 FROM instances").fetchall()
    database.close()
    assert found == [("one", "two")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "a study is made of one thing - got nothing"),
        (["--instances", "LINES", "--predictions", "LINES", "LINES"], "one thing - got both"),
        (["--instances", "LINES", "--names", "a", "b"], "--names has no effect"),
        (["--predictions", "LINES", "LINES", "--names", "a", "b", "--names", "c", "d"],
         "--names are of another number - got 2 - expected 1"),
        (["--instances", "none.jsonl"], "file is missing"),
        (["--instances", "LINES", "--gold", "LINES"], "instance has no gold answer"),
        (["--instances", "LINES", "--guidelines", "none.md"], "guidelines cannot be read"),
        (["--instances", "GOLD"], "there are no instances but gold"),
    ],
)  # fmt: skip
def test_make_refuses(annotate, lines, tmp_path, flags, message):
    gold = tmp_path / "gold.jsonl"
    gold.write_text(json.dumps({**line(1), "gold": {"preference": "tie"}}) + "\n")
    names = {"LINES": lines, "GOLD": gold}
    flags = [names.get(flag, flag) for flag in flags]
    assert message in annotate("make", "--db", tmp_path / "s.db", *flags, status=2).err
    assert not (tmp_path / "s.db").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--host", "0.0.0.0"],
            "passwords would go through the network in clear - got --host 0",
        ),
        (["--host", "192.168.1.5"], "passwords would go through the network in clear"),
        (["--tls_certificate", "x"], "TLS needs a certificate and its key"),
        (["--tls_certificate", "x", "--tls_key", "y"], "certificate cannot be used"),
        (["--origin", "ftp://x"], "--origin is no address of a server"),
        (["--db", "none.db"], "there is no such database"),
    ],
)
def test_serve_refuses(annotate, lines, tmp_path, flags, message):
    db = tmp_path / "s.db"
    annotate("make", "--db", db, "--instances", lines)
    assert message in annotate("serve", "--db", db, *flags, status=2).err


def test_report_and_export_refuse(annotate, lines, tmp_path):
    db = tmp_path / "s.db"
    annotate("make", "--db", db, "--instances", lines)
    err = annotate("export", "--db", db, "--output", tmp_path / "x.doc", status=2).err
    assert "format is not known - got x.doc" in err
    sheet = tmp_path / "x.csv"
    sheet.write_text("id\n")
    assert "--settled has no effect" in annotate("report", sheet, "--settled", status=2).err
    assert "there are no answers yet" in annotate("report", sheet, status=2).err


def test_no_message_shows_the_password_of_a_database(annotate, tmp_path):
    url = "postgresql://ada:geheim@127.0.0.1:9/none"
    for words in (["report", url], ["user", "shut", "x", "--db", url], ["serve", "--db", url]):
        err = annotate(*words, status=2).err
        assert "database cannot be used" in err and "geheim" not in err


def test_groups_of_answers_are_taken_and_a_study_that_is_there_is_left(annotate, tmp_path):
    for model in "mn":
        rows = [{"id": i, "prompt": f"p{i}", "output": model, "group": "xyz"[i % 3]}
                for i in range(6)]  # fmt: skip
        (tmp_path / f"{model}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    files = ("--predictions", tmp_path / "m.jsonl", tmp_path / "n.jsonl")
    make = ("make", "--db", tmp_path / "s.db", *files, "--group", "x", "--group", "z")
    assert "4 instances, " in annotate(*make).out
    before = (tmp_path / "s.db").read_bytes()
    assert "s.db: there is a study already" in annotate(*make, "--if_absent").out
    assert (tmp_path / "s.db").read_bytes() == before
    assert "there is a database already" in annotate(*make, status=2).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.jsonl", "n.jsonl", "s.db"]
    (tmp_path / "empty.db").touch()
    refused = annotate("make", "--db", tmp_path / "empty.db", *files, "--if_absent", status=2)
    assert "there is a database already" in refused.err
    refused = annotate("make", "--db", tmp_path / "t.db", *files, "--group", "w", status=2).err
    assert re.search(r"no instance of a group - got 'w' at .* - expected x or y or z", refused)
    assert not (tmp_path / "t.db").exists()
