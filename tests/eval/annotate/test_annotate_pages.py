"""Pages of annotators and administrators, used as a browser without script does."""

import csv
import io
import json
import re

import pytest
import sqlalchemy as sa

from eval.annotate.dashboard import read_dashboard
from eval.annotate.store import accounts, tables
from eval.annotate.store.annotations import disagreements, read_annotations, settled
from eval.annotate.web import keys
from tests.eval.annotate import studies
from tests.eval.annotate.studies import said, visiting
from tulu_jax.errors import ConfigError


def test_from_invitation_to_thanks(study):
    with study.write() as connection:
        token = accounts.invite(connection, "zoé", accounts.ANNOTATOR)
    with visiting(study, None) as zoe:
        zoe.get(f"/join/{token}")
        zoe.post(f"/join/{token}", {"password": "a", "again": "b"}, 400)
        zoe.post(f"/join/{token}", {"password": "abc", "again": "abc"}, 400)
        zoe.post(f"/join/{token}", {"password": "long enough 1", "again": "long enough 1"})
        assert zoe.annotate() == 6
        page = zoe.get("/?done=1").text
        assert "6 of 6 answered" in page and "Thank you" in page
        zoe.get(f"/join/{token}", 404)
        zoe.post("/logout")
        assert zoe.get("/", 303).headers["location"] == "/login"
        zoe.log_in("ZOÉ", "long enough 1")
        assert "6 of 6 answered" in zoe.get("/").text


def test_going_on_where_one_was_back_and_later(study):
    with visiting(study, "bob") as bob:
        bob.get("/")
        assert bob.post("/go").headers["location"] == "/task/1"
        assert bob.answer(1, comment="first thought").headers["location"] == "/task/2"
        bob.get("/task/2")
        assert bob.post("/task/2/later").headers["location"] == "/task/3"
        bob.post("/logout")
        bob.log_in("bob")
        bob.get("/")
        assert bob.post("/go").headers["location"] == "/task/3"
        page = bob.get("/task/1").text
        assert re.search(r'value="a-is-better" checked', page) and "first thought" in page
        bob.answer(1, preference="tie", comment="second thought")
        assert re.search(r'value="tie" checked', bob.get("/task/1").text)
        with study.read() as connection:
            rows = connection.scalars(sa.select(tables.answers.c.comment)).all()
        assert rows == ["first thought", "second thought"]
        assert "later" in bob.get("/").text


def test_a_script_gets_json(study):
    asks = {"accept": "application/json"}
    with visiting(study, "bob") as bob:
        bob.get("/")
        bob.post("/go")
        bob.get("/task/1")
        headers = {**asks, "x-csrf-token": bob.csrf()}
        post = bob.client.post
        answer = post("/task/1", data=said(key="k"), headers=headers)
        assert answer.json() == {"saved": True, "next": "/task/2"}
        answer = post("/task/1", data=said(preference=""), headers=headers)
        assert answer.status_code == 422
        assert answer.json() == {"wrong": "please say which one you prefer"}
        with study.write() as connection:
            connection.execute(tables.study.update().values(state="paused"))
        answer = post("/task/1", data=said(key="k2"), headers=headers)
        assert answer.status_code == 409 and "paused" in answer.json()["wait"]
        assert "takes no answers for now" in bob.get("/task/1").text
        bob.post("/logout")
        answer = post("/task/1", data=said(), headers=headers)
        assert answer.status_code == 401


def test_a_form_that_lacks_something_comes_back_with_words(study):
    with visiting(study, "bob") as bob:
        bob.get("/")
        bob.post("/go")
        bob.get("/task/1")
        answer = bob.post("/task/1", said(acceptable_b=""), 422)
        assert "please say whether B is acceptable" in answer.text


def test_time_is_the_browsers_but_no_more_than_passed(study, monkeypatch):
    from eval.annotate.web import context

    clock = [1000.0]
    monkeypatch.setattr(context.time, "time", lambda: clock[0])
    with visiting(study, None) as bob:
        bob.log_in("bob")
        bob.get("/")
        bob.post("/go")
        expected = []
        for spent, kept in (("7.5", 7.5), ("1e9", 60.0), ("nan", 60.0), ("", 60.0), ("-3", 60.0)):
            bob.get("/task/1")
            opened = bob.hidden("opened")
            clock[0] += 60
            bob.post("/task/1", said(key=f"k{spent}", opened=opened, spent=spent))
            expected.append(kept)
        bob.post("/task/2", said(opened=opened, spent="5"))  # the time of another page
        with study.read() as connection:
            seconds = connection.scalars(sa.select(tables.answers.c.seconds)).all()
        assert seconds == [pytest.approx(one, abs=0.2) for one in expected] + [None]


def test_keys_are_ones_own(study):
    with visiting(study, "bob") as bob:
        page = bob.get("/settings").text
        fields = dict(re.findall(r'name="(key_\w+)" value="(.)"', page))
        assert len(fields) == len(keys.ACTIONS) and len(set(fields.values())) == len(fields)
        bob.post("/settings", {**fields, "key_a_yes": "ü", "auto": "yes"})
        bob.get("/")
        bob.post("/go")
        page = bob.get("/task/1").text
        assert 'data-key="ü" aria-keyshortcuts="ü"' in page and 'data-auto="yes"' in page
        bob.get("/settings")
        answer = bob.post("/settings", {**fields, "key_a_no": "1"}, 400)
        assert "one key would do two things" in answer.text
        bob.post("/settings", {**fields, "reset": "yes"})
        assert 'data-key="q"' in bob.get("/task/1").text


def test_keys_that_are_none():
    with pytest.raises(ConfigError, match="key is not one character - got 'ab'"):
        keys.read_keys({"key_later": "ab"})
    with pytest.raises(ConfigError, match="one key would do two things - got 'q'"):
        keys.read_keys({"key_later": "Q"})


def test_own_answers_name_models_only_once_the_study_is_closed(study):
    with visiting(study, "bob", "ada") as (bob, ada):
        bob.annotate()
        rows = list(csv.DictReader(io.StringIO(bob.get("/my-answers.csv").text)))
        assert len(rows) == 6 and not [name for name in rows[0] if "model" in name]
        ada.get("/admin/study")
        ada.post("/admin/study", {"what": "close"}, 400)
        ada.post("/admin/study", {"what": "close", "sure": "yes"})
        rows = list(csv.DictReader(io.StringIO(bob.get("/my-answers.csv").text)))
        assert {(row["model_a"], row["model_b"]) for row in rows} == {
            studies.MODELS, studies.MODELS[::-1]
        }  # fmt: skip
        ada.get("/admin/study")
        ada.post("/admin/study", {"what": "open"}, 409)  # the secret is out
        bob.get("/task/1")
        bob.post("/task/1", said(preference="tie"), 409)


def test_pause_and_open_again(study):
    with visiting(study, "bob", "ada") as (bob, ada):
        bob.get("/")
        bob.post("/go")
        ada.get("/admin/study")
        ada.post("/admin/study", {"what": "pause"})
        bob.get("/task/1")
        bob.post("/task/1", said(), 409)
        ada.get("/admin/study")
        ada.post("/admin/study", {"what": "open"})
        bob.answer(1)
        ada.post("/admin/study", {"what": "guidelines", "guidelines": "Be **fair** <script>"})
        page = bob.get("/").text
        assert "Be <strong>fair</strong> &lt;script&gt;" in page
        events = ada.get("/admin/study").text
        assert events.count(': <span dir="auto">guidelines') == 1
        ada.post("/admin/study", {"what": "explode"}, 400)


def left_wins(page):
    """Prefers the completion that says left, whichever side it is on."""
    return {"preference": "a-is-better" if page.index("left ") < page.index("right ")
            else "b-is-better"}  # fmt: skip


def right_wins(page):
    return {"preference": "b-is-better" if page.index("left ") < page.index("right ")
            else "a-is-better"}  # fmt: skip


def test_dashboard_disagreements_decisions_and_export(study):
    with visiting(study, "bob", "eve", "ada") as (bob, eve, ada):
        bob.annotate(lambda page: {**left_wins(page), "acceptable_b": "yes"})
        eve.annotate(lambda page: {**right_wins(page), "acceptable_b": "yes"})
        board = read_dashboard(study)
        assert (board.done, board.wanted) == (12, 12)
        assert board.figures.pairs[0].wins["zebra-model"].value == 1.0
        assert board.figures.agreement.comparison.value == 0.0
        page = ada.get("/admin").text
        assert "12 of 12 annotations of 6 instances" in page and 'class="wins"' in page
        assert len(disagreements(study)) == 6
        assert "of which 6 are not decided" in ada.get("/admin/disagreements").text
        for number in range(1, 7):
            page = ada.get(f"/admin/adjudicate/{number}").text
            assert "zebra" not in page and "yak" not in page
            assert "bob" in page and "eve" in page
            ada.post(f"/admin/adjudicate/{number}", {**said(), **right_wins(page)})
        assert "of which 0 are not decided" in ada.get("/admin/disagreements").text
        assert {one.winner for one in settled(study)} == {"yak-model"}
        whole = [json.loads(line) for line in ada.get("/admin/export/jsonl").text.splitlines()]
        assert len(whole) == 12 == len(read_annotations(study))
        few = list(csv.DictReader(io.StringIO(ada.get("/admin/export/csv?settled=1").text)))
        assert len(few) == 6 and {row["evaluator"] for row in few} == {"ada (adjudicated)"}
        assert ada.get("/admin/export/xlsx").content[:2] == b"PK"
        ada.get("/admin/export/exe", 404)
        ada.get("/admin/adjudicate/99", 404)
        ada.get("/admin/adjudicate/99999999999999999999", 404)
        ada.get("/admin/adjudicate/1")
        ada.post("/admin/adjudicate/1", {}, 422)


def test_who_stands_out_is_named(tmp_path):
    database = studies.make(tmp_path / "s.db", studies.instances(24), annotators=3)
    people = [studies.add_user(database, name) for name in ("always-a", "fast", "fair")]
    from eval.annotate.store import answers

    for person in people:
        for position in range(1, 25):
            answers.next_position(database, person.id)
            side = "a" if person.name == "always-a" or position % 2 else "b"
            one = answers.Answer((True, True), f"{side}-is-better")
            answers.submit(database, person.id, position, "k", one,
                           1.0 if person.name == "fast" else 30.0)  # fmt: skip
    remarks = {one.name: one.remarks for one in read_dashboard(database).people}
    assert remarks == {
        "always-a": ("prefers A nearly always", "always the same preference"),
        "fast": ("much faster than the others",),
        "fair": (),
    }
    database.close()


def test_gold_is_counted(tmp_path):
    import dataclasses

    gold = [dataclasses.replace(one, gold={"preference": "zebra-model",
                                           "acceptable": {"yak-model": "no"}})
            for one in studies.instances(3, start=90)]  # fmt: skip
    database = studies.make(tmp_path / "s.db", [*studies.instances(30), *gold], batch=30)
    for name in ("ada", "bob", "eve"):
        studies.add_user(database, name, accounts.ADMIN if name == "ada" else accounts.ANNOTATOR)

    def right(page):
        choice = left_wins(page)
        bad = "b" if choice["preference"] == "a-is-better" else "a"
        return {**choice, "acceptable_a": "yes", "acceptable_b": "yes", f"acceptable_{bad}": "no"}

    with visiting(database, "bob", "eve", "ada") as (bob, eve, ada):
        assert bob.annotate(right) == 33
        eve.annotate(right_wins)
        board = read_dashboard(database)
        assert {one.name: one.gold for one in board.people} == {"bob": (3, 3), "eve": (0, 3)}
        assert "misses gold instances" in ada.get("/admin").text
        assert (board.done, board.wanted) == (60, 60)
    database.close()


def test_people(study):
    with visiting(study, "bob", "ada", None) as (bob, ada, other):
        bob.get("/")
        bob.post("/go")
        ada.get("/admin/people")
        page = ada.post("/admin/invite", {"name": "zoe", "role": "annotator", "days": "2"}, 200)
        (link,) = re.findall(r"http://testserver(/join/[\w-]+)", page.text)
        other.get(link)
        other.post(link, {"password": "long enough 1", "again": "long enough 1"})
        for form, words in (
            ({"name": "BOB", "role": "annotator", "days": "2"}, "name is taken"),
            ({"name": "", "role": "annotator", "days": "2"}, "impossible name"),
            ({"name": "x", "role": "god", "days": "2"}, "There is no such role"),
            ({"name": "x", "role": "annotator", "days": "soon"}, "is no number up to 90"),
            ({"name": "x", "role": "annotator", "days": "nan"}, "is no number up to 90"),
        ):
            assert words in ada.post("/admin/invite", form, 400).text
        with study.read() as connection:
            handles = {row.name: row.handle for row in connection.execute(sa.select(tables.users))}
        page = ada.post(f"/admin/people/{handles['bob']}", {"what": "disable"}, 200)
        assert "bob cannot log in any more" in page.text
        assert bob.get("/", 303).headers["location"] == "/login"
        bob.log_in("bob", status=401)
        ada.post(f"/admin/people/{handles['bob']}", {"what": "enable"}, 200)
        bob.log_in("bob")
        page = ada.post(f"/admin/people/{handles['bob']}", {"what": "release"}, 200)
        assert "0 instances of bob" in page.text
        page = ada.post(f"/admin/people/{handles['bob']}", {"what": "password"}, 200)
        (link,) = re.findall(r"http://testserver(/join/[\w-]+)", page.text)
        other.client.cookies.clear()
        other.get(link)
        other.post(link, {"password": "quite another 2", "again": "quite another 2"})
        bob.log_in("bob", "quite another 2")
        ada.post(f"/admin/people/{handles['ada']}", {"what": "disable"}, 400)
        ada.post("/admin/people/nobody", {"what": "disable"}, 404)
        ada.post(f"/admin/people/{handles['bob']}", {"what": "explode"}, 400)


def test_an_administrator_does_not_annotate(study):
    with visiting(study, "ada") as ada:
        assert ada.get("/", 303).headers["location"] == "/admin"
        ada.get("/admin")
        ada.post("/go", status=403)
        assert ada.get("/task/1", 303).headers["location"] == "/admin"


def test_health_and_unknown_pages(study):
    with visiting(study, None) as nobody:
        assert nobody.get("/health").text == "ok\n"
        assert "There is no such page" in nobody.get("/nothing", 404).text
        assert nobody.client.post("/health").status_code == 405
        assert nobody.client.put("/login").status_code == 405


def test_a_database_that_fails_loses_nothing_and_says_so(study, monkeypatch):
    from sqlalchemy.exc import OperationalError

    from eval.annotate.store import answers

    def fail(*_args, **_options):
        raise OperationalError(
            "INSERT secret-sql", {"x": "secret-value"}, Exception("disk is full")
        )

    with visiting(study, "bob") as bob:
        bob.get("/")
        bob.post("/go")
        bob.get("/task/1")
        monkeypatch.setattr(answers, "submit", fail)
        answer = bob.post("/task/1", said(), 503)
        assert "try again" in answer.text and "secret" not in answer.text
        headers = {"accept": "application/json", "x-csrf-token": bob.csrf()}
        answer = bob.client.post("/task/1", data=said(), headers=headers)
        assert answer.status_code == 503 and "again" in answer.json()
