"""Blind by construction: what an annotator is sent is the same whatever the models are called."""

import random
import re

import sqlalchemy as sa

from eval.annotate.records import Instance
from eval.annotate.store import assign, tables
from tests.eval.annotate import studies
from tests.eval.annotate.studies import visiting

DRAWN = re.compile(r'(name="(?:csrf|key|opened)" value=|name="csrf" content=|data-user=)"[^"]*"')
"""What is drawn for each page or account."""


def everything(database, monkeypatch_random):
    """All that an annotator is sent on the way through a study: status, headers and body."""
    found = []
    studies.add_user(database, "bob")
    with visiting(database, "bob") as bob:

        def keep(answer):
            headers = {k: v for k, v in answer.headers.items() if k != "set-cookie"}
            found.append((answer.status_code, headers, DRAWN.sub("", answer.text)))

        keep(bob.get("/"))
        to = bob.post("/go").headers["location"]
        while to.startswith("/task/"):
            keep(bob.get(to))
            headers = {"accept": "application/json", "x-csrf-token": bob.csrf()}
            answer = bob.client.post(to, data=studies.said(key=str(len(found))), headers=headers)
            keep(answer)
            keep(bob.get(to))
            to = answer.json()["next"]
        bob.get("/task/1")
        asks = {"accept": "application/json"}
        for form, headers in (
            ({"csrf": bob.csrf(), "preference": "x"}, {}), ({"csrf": bob.csrf()}, asks),
            (studies.said(csrf="x"), {}), (studies.said(csrf="x"), asks),
            (studies.said(csrf=bob.csrf(), comment="x" * 10_001), {}),
            (studies.said(csrf=bob.csrf(), comment="x" * 300_000), asks),
        ):  # fmt: skip
            keep(bob.client.post("/task/1", data=form, headers=headers))
            keep(bob.client.post("/task/99", data=form, headers=headers))
        with database.write() as connection:
            connection.execute(tables.study.update().values(state="paused"))
        for path in ("/", "/task/1"):
            keep(bob.client.get(path))
        keep(bob.client.post("/task/1", data=studies.said(csrf=bob.csrf())))
        for path in ("/?done=1", "/settings", "/my-answers.csv", "/task/99", "/nothing",
                     "/static/app.js", "/static/app.css", "/admin", "/health"):  # fmt: skip
            keep(bob.client.get(path))
    return found


def study_of(path, names, turned):
    """The same texts, the models called otherwise, and stored in the other order where turned."""
    found = []
    for i in range(8):
        texts, models = (f"one says {i}", f"the other says {i}"), names
        if turned:
            texts, models = texts[::-1], models[::-1]
        found.append(Instance(f"t{i}", f"Prompt {i}?", models, texts))
    return studies.make(path, found, overlap=0.0)


def test_names_and_storage_do_not_change_what_is_sent(tmp_path, monkeypatch):
    sent = []
    long = ("a-very-long-name-of-a-model" * 9, "x")
    cases = [(("m", "n"), False), (long, False), (("m", "n"), True)]
    for place, (names, turned) in enumerate(cases):
        drawn = random.Random(7)
        monkeypatch.setattr(assign, "_random", drawn)
        orders = assign.blind_orders
        if turned:  # the same texts are to be A: the opposite order of storage
            monkeypatch.setattr(assign, "blind_orders", lambda n, o=orders: [not s for s in o(n)])
        sent.append(everything(study_of(tmp_path / f"{place}.db", names, turned), drawn))
        monkeypatch.undo()
        from eval.annotate.store import accounts

        monkeypatch.setattr(accounts, "HASHER", studies.QUICK)
    assert len(sent[0]) > 30
    for other in sent[1:]:
        assert other == sent[0]


def test_no_page_names_a_model(study):
    with visiting(study, "bob") as bob:
        bob.annotate()
        for path in ("/", "/?done=1", "/task/1", "/settings", "/my-answers.csv", "/admin"):
            answer = bob.client.get(path)
            whole = answer.text + str(answer.headers)
            assert not re.search("zebra|yak", whole)


def test_the_order_is_each_ones_own_and_stays(tmp_path):
    database = studies.make(tmp_path / "s.db", studies.instances(12), annotators=4, batch=12)
    orders = {}
    for name in ("bob", "eve", "zoe"):
        studies.add_user(database, name)
        with visiting(database, name) as one:
            one.get("/")
            one.post("/go")
            orders[name] = [left_is_a(one.get(f"/task/{i}").text) for i in range(1, 13)]
            assert sum(orders[name]) == 6
            assert orders[name] == [left_is_a(one.get(f"/task/{i}").text) for i in range(1, 13)]
    assert len({tuple(order) for order in orders.values()}) == 3
    with database.read() as connection:
        rows = connection.execute(
            sa.select(tables.assignments.c.instance_id).order_by(
                tables.assignments.c.user_id, tables.assignments.c.position
            )
        ).all()
    places = [row.instance_id for row in rows]
    assert len({tuple(places[i : i + 12]) for i in (0, 12, 24)}) == 3  # nor do numbers tell
    database.close()


def left_is_a(page):
    return page.index("left ") < page.index("right ")
