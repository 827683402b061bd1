"""Databases, migrations, accounts, assignment and answers."""

import os
import stat
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from eval.annotate.store import accounts, answers, assign, tables
from eval.annotate.store.annotations import read_annotations
from eval.annotate.store.answers import Answer, NotOpenError
from eval.annotate.store.database import database_url, make_database, open_database
from tests.eval.annotate import studies
from tulu_jax.errors import ConfigError, DataError

YES = Answer((True, False), "a-is-better")


def count(database, table):
    with database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table))


def user(database, name="bob"):
    with database.read() as connection:
        return accounts.find_user(connection, name)


def test_migrations_make_the_tables_that_the_code_has(study):
    with study.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_a_database_is_its_owners_alone(tmp_path):
    studies.make(tmp_path / "deep" / "s.db").close()
    assert stat.S_IMODE(os.stat(tmp_path / "deep" / "s.db").st_mode) == 0o600
    with pytest.raises(ConfigError, match="there is a database already"):
        studies.make(tmp_path / "deep" / "s.db")


def test_answers_are_on_the_disk_before_they_are_acknowledged(study):
    with study.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_databases_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="there is no such database"):
        open_database(str(tmp_path / "none.db"))
    (tmp_path / "text.db").write_text("hello, this is text")
    with pytest.raises(DataError, match="file is no database of SQLite"):
        open_database(str(tmp_path / "text.db"))
    import sqlite3

    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(ConfigError, match="database holds no study"):
        open_database(str(tmp_path / "other.db"))
    (tmp_path / "cut.db").write_bytes(b"SQLite format 3\0" + b"\1" * 300)
    with pytest.raises(ConfigError, match="database cannot be used"):
        open_database(str(tmp_path / "cut.db"))


def test_a_newer_database_is_not_touched(tmp_path):
    database = studies.make(tmp_path / "s.db")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(ConfigError, match=r"database is of a newer version .* revision 9999"):
        open_database(str(tmp_path / "s.db"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mysql://x/y", "--db is of an unknown kind - got mysql"),
        ("postgresql://u:p:p@h:x/y", "--db is no address of a database"),
        ("a\0b", "names no file"),
    ],
)
def test_addresses_that_are_none(text, message):
    with pytest.raises(ConfigError, match=message):
        database_url(text)


def test_a_server_that_is_not_there_is_told_without_its_password():
    with pytest.raises(ConfigError, match="database cannot be used") as told:
        make_database("postgresql://ada:geheim@127.0.0.1:9/x", "S", answers_settings(), [])
    assert "geheim" not in str(told.value) and "ada" in str(told.value)


def answers_settings():
    from eval.annotate.store.database import Settings

    return Settings()


def test_log_in(study):
    assert accounts.log_in(study, "BOB ", studies.PASSWORD).name == "bob"
    assert accounts.log_in(study, "bob", "wrong password") is None
    assert accounts.log_in(study, "nobody", studies.PASSWORD) is None
    with study.write() as connection:
        accounts.set_disabled(connection, user(study).id, True)
    assert accounts.log_in(study, "bob", studies.PASSWORD) is None


def test_passwords_are_argon2_by_default_and_not_in_the_database(tmp_path, monkeypatch):
    monkeypatch.undo()
    database = studies.make(tmp_path / "s.db")
    studies.add_user(database, "ada")
    with database.read() as connection:
        assert connection.scalar(sa.select(tables.users.c.password)).startswith("$argon2id$v=19$")
    database.close()
    assert studies.PASSWORD.encode() not in (tmp_path / "s.db").read_bytes()


@pytest.mark.parametrize(
    ("password", "message"),
    [("short", "impossible password - got 5 characters"), ("x" * 201, "got 201"),
     ("bob-and-bob", "easily guessed"), ("abababababab", "easily guessed")],
)  # fmt: skip
def test_poor_passwords_are_refused_without_being_shown(password, message):
    with pytest.raises(ConfigError, match=message) as told:
        accounts.check_password(password, "bob")
    assert password not in str(told.value)


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\x00b", "a\u202eb", "a\nb"])
def test_impossible_names(name):
    with pytest.raises(ConfigError, match="impossible name of a user"):
        accounts.check_name(name)


def test_names_are_taken_whatever_their_case(study):
    with study.write() as connection:
        for name in ("Bob", "BOB", "ｂｏｂ"):
            with pytest.raises(ConfigError, match="name is taken"):
                accounts.add_user(connection, name, accounts.ANNOTATOR, None)


def test_an_invitation_works_once_and_expires(study):
    with study.write() as connection:
        token = accounts.invite(connection, "zoe", accounts.ANNOTATOR)
        old = accounts.invite(connection, "yve", accounts.ANNOTATOR, days=-1)
        stored = connection.scalars(sa.select(tables.invitations.c.token)).all()
    assert token not in stored and old not in stored
    with pytest.raises(ConfigError, match="impossible password"):
        accounts.accept(study, token, "short")
    assert accounts.accept(study, token, studies.PASSWORD).name == "zoe"
    assert accounts.accept(study, token, studies.PASSWORD) is None
    assert accounts.accept(study, old, studies.PASSWORD) is None
    assert accounts.accept(study, "made up", studies.PASSWORD) is None
    assert accounts.accept(study, "ü\x00", studies.PASSWORD) is None


def test_an_invitation_is_not_used_twice_at_once(study):
    with study.write() as connection:
        token = accounts.invite(connection, "zoe", accounts.ANNOTATOR)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(accounts.accept(study, token, "a long one 1")))
        for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sum(one is not None for one in found) == 1


def test_a_new_password_ends_all_sessions(study):
    bob = user(study)
    session = accounts.start_session(study, bob)
    assert accounts.find_session(study, session) == bob
    with study.write() as connection:
        token = accounts.invite(connection, "bob", accounts.ANNOTATOR, user=bob)
    assert accounts.accept(study, token, "another one 9").id == bob.id
    assert accounts.find_session(study, session) is None
    assert accounts.log_in(study, "bob", "another one 9").id == bob.id


def test_sessions_end(study, monkeypatch):
    bob = user(study)
    session = accounts.start_session(study, bob)
    now = time.time()
    monkeypatch.setattr(accounts.time, "time", lambda: now + accounts.IDLE_SECONDS - 5)
    assert accounts.find_session(study, session)  # which moves the time it was seen
    monkeypatch.setattr(accounts.time, "time", lambda: now + accounts.IDLE_SECONDS + 5)
    assert accounts.find_session(study, session)
    monkeypatch.setattr(accounts.time, "time", lambda: now + accounts.SESSION_SECONDS + 5)
    assert accounts.find_session(study, session) is None
    accounts.start_session(study, bob)
    assert count(study, tables.sessions) == 1  # the old one is cleared away


def test_blind_orders_are_balanced_and_random():
    for n in (0, 1, 2, 7, 20):
        orders = assign.blind_orders(n)
        assert len(orders) == n and abs(2 * sum(orders) - n) <= 1
    drawn = {tuple(assign.blind_orders(20)) for _ in range(50)}
    assert len(drawn) == 50
    firsts = sum(assign.blind_orders(3)[0] for _ in range(600))
    assert 200 < firsts < 400


def test_everybody_gets_own_instances_until_places_are_taken(tmp_path):
    found = studies.instances(10)
    database = studies.make(tmp_path / "s.db", found, annotators=2, overlap=0.5, batch=4)
    people = [studies.add_user(database, name) for name in ("x", "y", "z")]
    for _ in range(20):
        for one in people:
            position = answers.next_position(database, one.id)
            if position is not None:
                answers.submit(database, one.id, position, f"k{position}", YES)
    with database.read() as connection:
        rows = connection.execute(
            sa.select(tables.assignments.c.instance_id, sa.func.count())
            .group_by(tables.assignments.c.instance_id)
        ).all()  # fmt: skip
    assert sorted(n for _, n in rows) == [1] * 5 + [2] * 5
    assert count(database, tables.answers) == 15
    assert all(answers.next_position(database, one.id) is None for one in people)
    database.close()


def test_draws_at_once_do_not_take_a_place_twice(tmp_path):
    database = studies.make(tmp_path / "s.db", studies.instances(30), overlap=0.0, batch=7)
    people = [studies.add_user(database, f"p{i}") for i in range(8)]
    threads = [
        threading.Thread(target=answers.next_position, args=(database, one.id)) for one in people
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert count(database, tables.assignments) == 30
    database.close()


def test_gold_comes_to_everybody_and_takes_no_place(tmp_path):
    import dataclasses

    gold = [dataclasses.replace(one, gold={"preference": "zebra-model"})
            for one in studies.instances(2, start=90)]  # fmt: skip
    database = studies.make(tmp_path / "s.db", [*studies.instances(20), *gold], batch=10)
    for name in ("x", "y"):
        one = studies.add_user(database, name)
        seen = []
        position = answers.next_position(database, one.id)
        while position is not None:
            task, _ = answers.read_task(database, one.id, position)
            seen.append(task.prompt)
            position = answers.submit(database, one.id, position, "k", YES)
        assert len(seen) == 22 and {"Prompt 90?", "Prompt 91?"} <= set(seen)
    assert len(read_annotations(database)) == 40
    assert len(read_annotations(database, gold=True)) == 44
    database.close()


def test_what_was_not_answered_can_be_given_to_others(tmp_path):
    database = studies.make(tmp_path / "s.db", studies.instances(5), overlap=0.0)
    x, y = (studies.add_user(database, name) for name in "xy")
    first = answers.next_position(database, x.id)
    answers.submit(database, x.id, first, "k", YES)
    assert answers.next_position(database, y.id) is None
    with database.write() as connection:
        assert assign.release(connection, x.id) == 4
    assert answers.next_position(database, x.id) is None  # not again to the same one
    assert answers.next_position(database, y.id) == 1
    assert answers.count_places(database, y.id) == (0, 4)
    answers.submit(database, x.id, 3, "k", YES)  # the page was still open: nothing is lost
    assert answers.count_places(database, x.id) == (2, 2)
    database.close()


def test_an_edit_is_a_new_row_and_the_same_form_twice_is_not(study):
    bob = user(study)
    position = answers.next_position(study, bob.id)
    follows = answers.submit(study, bob.id, position, "k", YES, 3.5)
    assert answers.submit(study, bob.id, position, "k", YES, 9.0) == follows
    assert count(study, tables.answers) == 1
    changed = Answer((True, True), "tie", "hard", "on second thought")
    answers.submit(study, bob.id, position, "k", changed)
    assert count(study, tables.answers) == 2
    answers.submit(study, bob.id, position, "k", YES, 3.5)  # sent again, late: still the old row
    assert count(study, tables.answers) == 2
    assert answers.read_task(study, bob.id, position)[0].answer == changed


def test_the_same_form_many_times_at_once_is_kept_once(study):
    bob = user(study)
    position = answers.next_position(study, bob.id)
    threads = [
        threading.Thread(target=answers.submit, args=(study, bob.id, position, "k", YES))
        for _ in range(16)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert count(study, tables.answers) == 1


def test_later_ones_come_last(study):
    bob = user(study)
    assert answers.next_position(study, bob.id) == 1
    assert answers.put_off(study, bob.id, 1) == 2
    for position in range(2, 6):
        assert answers.submit(study, bob.id, position, "k", YES) == position + 1
    assert answers.submit(study, bob.id, 6, "k", YES) == 1
    assert answers.submit(study, bob.id, 1, "k", YES) is None


def test_nobody_answers_at_anothers_or_no_position(study):
    bob, eve = user(study), user(study, "eve")
    answers.next_position(study, bob.id)
    for position in (0, 1, 7):
        with pytest.raises(LookupError):
            answers.submit(study, eve.id, position, "k", YES)
    assert count(study, tables.answers) == 0


@pytest.mark.parametrize("state", ["paused", "closed"])
def test_a_study_that_is_not_open_takes_nothing(study, state):
    bob = user(study)
    answers.next_position(study, bob.id)
    with study.write() as connection:
        connection.execute(tables.study.update().values(state=state))
    with pytest.raises(NotOpenError, match=state):
        answers.submit(study, bob.id, 1, "k", YES)
    assert answers.next_position(study, user(study, "eve").id) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acceptable_a": ""}, "please say whether A is acceptable$"),
        ({"acceptable_b": "maybe"}, "please say whether B is acceptable - got 'maybe'"),
        ({"preference": "A"}, "please say which one you prefer - got 'A'"),
        ({"quality": "odd"}, "please say quality - got 'odd'"),
        ({"comment": "x" * 10_001}, "comment is too long - got 10,001 characters"),
    ],
)
def test_answers_that_are_none(changed, message):
    with pytest.raises(DataError, match=message):
        answers.read_answer(studies.said(**changed))


def test_annotations_name_models_in_the_order_that_was_shown(study):
    bob = user(study)
    for position in range(1, 7):
        answers.next_position(study, bob.id)
        answers.submit(study, bob.id, position, "k", YES)
    found = read_annotations(study)
    assert {one.models for one in found} == {studies.MODELS, studies.MODELS[::-1]}
    for one in found:
        sides = dict(zip(one.models, one.completions, strict=True))
        number = one.instance_id.split("_")[1]
        assert sides == {"zebra-model": f"left {number}", "yak-model": f"right {number}"}
        assert one.winner == one.models[0] and one.acceptable == (True, False)
        assert one.instance_index == int(number)
