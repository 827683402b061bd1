"""Forms that are too large or too slow, texts that are odd, files and secrets that are no one's."""

import asyncio
import csv
import io

import openpyxl
import pytest

from eval.annotate.records import Instance
from eval.annotate.store import accounts, answers
from eval.annotate.store.annotations import read_annotations
from eval.annotate.text import render
from eval.annotate.web.context import Site
from eval.annotate.web.guard import Guard
from tests.eval.annotate import studies
from tests.eval.annotate.studies import PASSWORD, said, visiting


def test_oversize_forms_are_refused_before_they_are_read(study):
    with visiting(study, "bob") as bob:
        bob.get("/")
        bob.post("/go")
        bob.get("/task/1")
        bob.post("/task/1", said(comment="x" * 300_000), 413)
        bob.post("/task/1", said(comment="\U0001f600" * 10_000))  # the longest that is right

        def endless():
            for _ in range(10**6):
                yield b"x" * 1024

        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert bob.client.post("/go", content=endless(), headers=headers).status_code == 413


def test_slow_forms_are_cut_off():
    async def app(scope, receive, send):
        raise AssertionError("a slow form reached the application")

    async def receive():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(Guard(app, secure=False, body_seconds=0.1)(scope, receive, send))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


def test_who_hangs_up_within_a_form_is_no_fault():
    async def app(scope, receive, send):
        raise AssertionError("half a form reached the application")

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        raise AssertionError("somebody who is gone was answered")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(Guard(app, secure=False)(scope, receive, send))


@pytest.mark.parametrize("text", ["[" * 9000, "> " * 9000, "*" * 9000, "- " * 9000, "x" * 200_000])
def test_the_end_of_an_odd_text_is_shown_too(text):
    assert "the end" in render(f"{text}\n\nthe end")


def test_no_secret_is_in_a_log_or_an_error(study, monkeypatch, caplog):
    def fail(*_args, **_options):
        raise RuntimeError("boom secret-value")

    with visiting(study, "bob") as bob:
        monkeypatch.setattr(answers, "read_places", fail)
        answer = bob.get("/", 500)
        assert "secret" not in answer.text and "Traceback" not in answer.text
    assert "RuntimeError" in caplog.text
    for secret in (PASSWORD, study.study().secret, "secret-value"):
        assert secret not in caplog.text


def test_forms_are_bound_to_the_studys_own_secret(study, tmp_path):
    other = studies.make(tmp_path / "other.db")
    assert Site(study).csrf("x") != Site(other).csrf("x")
    assert Site(study).seconds_since(Site(other).sign_time("x"), "x") is None
    assert study.study().secret != other.study().secret
    other.close()


def test_files_outside_are_not_served(study):
    with visiting(study, "bob") as bob:
        for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py",
                     "/static/....//app.py", "/static//etc/passwd", "/static/%2fetc%2fpasswd",
                     "/static/..%5capp.py", "/static/app.js%00.css", "/static/",
                     "/admin/export/..%2f..%2fetc%2fpasswd"):  # fmt: skip
            answer = bob.client.get(path)
            assert answer.status_code in (404, 405), path
            assert "import" not in answer.text and "root:" not in answer.text


def test_forms_that_are_sent_again_change_nothing(study):
    with visiting(study, "bob", "eve") as (bob, eve):
        for one in (bob, eve):
            one.get("/")
            one.post("/go")
        bob.get("/task/1")
        form = said(key=bob.hidden("key"), opened=bob.hidden("opened"), csrf=bob.csrf())
        for _ in range(3):
            assert bob.client.post("/task/1", data=form).status_code == 303
        bob.answer(1, preference="tie", comment="changed")
        assert bob.client.post("/task/1", data=form).status_code == 303  # an old one, again
        found = read_annotations(study)
        assert len(found) == 2 and found[-1].preference == "tie"
        assert 'value="tie" checked' in bob.get("/task/1").text
        assert eve.client.post("/task/1", data=form).status_code == 403  # of another session
        cookies = dict(bob.client.cookies)
        bob.get("/")
        bob.post("/logout")
        bob.client.cookies.update(cookies)  # and of one that has ended
        assert bob.client.post("/task/1", data=form).headers["location"] == "/login"
        assert len(read_annotations(study)) == 2


def test_no_export_holds_a_formula(tmp_path):
    starts = "=+-@\t\r\n"
    attack = "1+cmd|' /C calc'!A0"
    found = [
        Instance(f"{one}{i}", one + attack, (f"{one}m", "n"), (one + attack, one + attack))
        for i, one in enumerate(starts)
    ]
    database = studies.make(tmp_path / "s.db", found)
    studies.add_user(database, "ada", accounts.ADMIN)
    studies.add_user(database, "@bob")
    comments = iter([one + attack for one in "=+-@=+-"])
    with visiting(database, "@bob", "ada") as (bob, ada):
        assert bob.annotate(lambda _: {"comment": next(comments)}) == len(starts)
        sheets = ["/admin/export/csv", "/admin/export/csv?settled=1"]
        texts = [bob.get("/my-answers.csv").text, *(ada.get(path).text for path in sheets)]
        rows = [row for text in texts for row in csv.reader(io.StringIO(text, newline=""))]
        book = openpyxl.load_workbook(io.BytesIO(ada.get("/admin/export/xlsx").content))
        page = [cell for row in book.worksheets[0].iter_rows() for cell in row]
        book.close()
    assert len(rows) == 3 * (len(starts) + 1) and len(page) == 15 * (len(starts) + 1)
    cells = [cell for row in rows for cell in row]
    cells += [str(cell.value) for cell in page if cell.value is not None]
    assert "'@bob" in cells and f"'={attack}" in cells
    assert not [cell for cell in cells if cell.startswith(tuple(starts))]
    assert "f" not in {cell.data_type for cell in page}
    database.close()
