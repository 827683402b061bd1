"""Studies of older versions: brought to this one whole, or left as they were."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from eval.annotate.store import migrate, tables
from eval.annotate.store.annotations import read_annotations
from eval.annotate.store.database import Database, database_url, open_database
from tests.eval.annotate import studies
from tests.eval.annotate.studies import visiting
from tulu_jax.errors import ConfigError, DataError

FIRST = Path(__file__).with_name("first_version.sql")
"""A study as the first version made it: two annotators who began, an administrator who decided."""

SECOND = '''"""Accounts get a colour, instances a weight; sessions of before end."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    with op.batch_alter_table("users") as batch:  # others point to it
        batch.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="green"))
        batch.alter_column("created", new_column_name="made")
    op.add_column("instances", sa.Column("weight", sa.Double, server_default="1"))
    op.execute("DELETE FROM sessions")
    HOOK
'''
THIRD = '''"""Answers get a mood."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.add_column("answers", sa.Column("mood", sa.Text))
'''
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
OPEN = """
import sys
from pathlib import Path
from eval.annotate.store import migrate
from eval.annotate.store.database import open_database
migrate.FOLDER = Path(sys.argv[1])
open_database(sys.argv[2])
"""


@pytest.fixture
def versions(tmp_path, monkeypatch):
    """Writes a second and a third version that the program then has; where its migrations are."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def have(hook="pass"):
        (folder / "versions" / "0002_more.py").write_text(SECOND.replace("HOOK", hook))
        (folder / "versions" / "0003_more.py").write_text(THIRD)
        monkeypatch.setattr(migrate, "FOLDER", folder)
        return folder

    return have


def in_sqlite(path):
    with sqlite3.connect(path) as made:
        made.executescript(FIRST.read_text(encoding="utf-8"))
    made.close()
    return str(path)


def in_postgres(address, path):
    """The same rows in PostgreSQL, in the tables that its first version made."""
    source, target = sa.create_engine(f"sqlite:///{path}"), sa.create_engine(database_url(address))
    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    config.set_main_option("path_separator", "newline")
    theirs, ours = sa.MetaData(), sa.MetaData()
    with source.connect() as old, target.begin() as new:
        config.attributes["connection"] = new
        command.upgrade(config, "0001")
        theirs.reflect(old)
        ours.reflect(new)
        for table in ours.sorted_tables:
            if table.name == "alembic_version":
                continue
            rows = [dict(row._mapping) for row in old.execute(theirs.tables[table.name].select())]
            new.execute(table.insert(), rows)
            if "id" in table.c:
                new.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), {len(rows) + 9})"
                )
    source.dispose()
    target.dispose()
    return address


@pytest.fixture(params=["sqlite", "postgres"])
def old(request, tmp_path):
    """The address of a study of the first version."""
    path = in_sqlite(tmp_path / "old.db")
    if request.param == "sqlite":
        return path
    return in_postgres(request.getfixturevalue("postgres_database"), path)


def rows_of(where):
    """All that is in a study, by table, whatever tables and columns it has."""
    engine = sa.create_engine(database_url(where))
    found = sa.MetaData()
    with engine.connect() as connection:
        found.reflect(connection)
        rows = {
            name: sorted(
                map(repr, (dict(row._mapping) for row in connection.execute(one.select())))
            )
            for name, one in found.tables.items()
        }
    engine.dispose()
    return rows


def revision(database):
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def test_the_first_version_is_what_it_was(tmp_path):
    """A migration is never changed once it is out: studies were made by it."""
    then = in_sqlite(tmp_path / "then.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'now.db'}")
    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    config.set_main_option("path_separator", "newline")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    schemas = []
    for path in (then, tmp_path / "now.db"):
        with sqlite3.connect(path) as one:
            schemas.append(one.execute("SELECT type, name, sql FROM sqlite_master").fetchall())
        one.close()
    assert sorted(map(str, schemas[0])) == sorted(map(str, schemas[1])) and len(schemas[0]) > 20


def test_a_study_of_the_first_version_goes_on(old, versions):
    before = rows_of(old)
    database = open_database(old)  # by this very version
    annotations = read_annotations(database)
    assert len(annotations) == 5 and annotations[0].comment == "schön 好\n'; DROP TABLE users; --"
    database.close()
    versions()
    database = open_database(old)
    assert revision(database) == "0003"
    assert read_annotations(database) == annotations
    after = rows_of(old)
    assert len(after["answers"]) == len(before["answers"]) and after["sessions"] == []
    assert all("'colour': 'green'" in row for row in after["users"])
    for table in ("study", "adjudications", "assignments", "invitations", "events"):
        assert after[table] == before[table]
    if database.engine.dialect.name == "sqlite":
        with database.read() as connection:  # looked after again
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


def test_annotators_go_on_in_an_upgraded_study(old):
    database = open_database(old)
    with visiting(database, "eve", "ada") as (eve, ada):
        assert "2 of 4 answered" in eve.get("/").text
        assert eve.annotate() == 2
        assert "6 of 8 annotations" in ada.get("/admin").text
    assert len(read_annotations(database)) == 7
    database.close()


def test_an_upgrade_that_fails_changes_nothing(old, versions):
    before = rows_of(old)
    versions("raise ValueError('no colours left')")
    with pytest.raises(ValueError, match="no colours left"):
        open_database(old)
    assert rows_of(old) == before
    versions("op.execute('UPDATE nothing SET x = 1')")
    with pytest.raises(ConfigError, match=r"database cannot be used - got .*nothing"):
        open_database(old)
    assert rows_of(old) == before
    versions()
    database = open_database(old)
    assert revision(database) == "0003"
    database.close()


def test_an_upgrade_that_is_killed_changes_nothing(old, versions):
    before = rows_of(old)
    folder = versions(KILL)
    command = [sys.executable, "-c", OPEN, str(folder), old]
    assert subprocess.run(command, cwd=Path(__file__).parents[3]).returncode == -9
    assert rows_of(old) == before
    versions()
    database = open_database(old)
    assert revision(database) == "0003" and len(read_annotations(database)) == 5
    database.close()


def test_rows_that_would_point_to_nothing_stop_an_upgrade(tmp_path, versions):
    old = in_sqlite(tmp_path / "old.db")
    before = rows_of(old)
    versions("op.execute('DELETE FROM users WHERE id = 2')")
    with pytest.raises(DataError, match=r"rows would point to nothing - got \d+, first of table"):
        open_database(old)
    assert rows_of(old) == before


def test_a_newer_study_is_refused_and_left_as_it_is(old, versions, monkeypatch):
    here = migrate.FOLDER
    versions()
    open_database(old).close()
    before = rows_of(old)
    monkeypatch.setattr(migrate, "FOLDER", here)
    message = "database is of a newer version .* revision 0003 - expected 0001 at most - install"
    with pytest.raises(ConfigError, match=message):
        open_database(old)
    assert rows_of(old) == before


def test_two_that_open_a_study_at_once_upgrade_it_once(postgres_database, tmp_path, versions):
    old = in_postgres(postgres_database, in_sqlite(tmp_path / "old.db"))
    versions()
    first = Database(sa.create_engine(database_url(old)))
    opened = []
    with first.change_tables() as connection:
        second = threading.Thread(target=lambda: opened.append(open_database(old)))
        second.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        end = time.monotonic() + 60
        while not connection.exec_driver_sql(waiting).scalar() and time.monotonic() < end:
            time.sleep(0.01)
        assert not opened
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    second.join(60)
    assert [revision(one) for one in opened] == ["0003"]
    with opened[0].read() as connection:  # that one had nothing left to do
        names = {one["name"] for one in sa.inspect(connection).get_columns("answers")}
    assert names == set(tables.answers.c.keys())
    opened[0].close()
    first.close()


def test_a_new_study_has_every_version(tmp_path, versions):
    versions()
    database = studies.make(tmp_path / "new.db")
    assert revision(database) == "0003"
    database.close()
