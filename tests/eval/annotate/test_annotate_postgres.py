"""A study in PostgreSQL: the same tables, pages and figures as in SQLite."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from eval.annotate.store import accounts, tables
from eval.annotate.store.annotations import add_annotations, read_annotations
from eval.annotate.store.database import open_database
from tests.eval.annotate import studies
from tests.eval.annotate.studies import said, visiting
from tulu_jax.errors import ConfigError


def test_a_study_of_a_team(postgres_database):
    with pytest.raises(ConfigError, match="database holds no study"):
        open_database(postgres_database)
    database = studies.make(postgres_database)
    with pytest.raises(ConfigError, match="there is a study in this database already"):
        studies.make(postgres_database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    studies.add_user(database, "ada", accounts.ADMIN)
    for name in ("bob", "eve"):
        studies.add_user(database, name)
    with visiting(database, "bob", "eve", "ada") as (bob, eve, ada):
        assert bob.annotate() == 6
        eve.annotate(lambda _: {"preference": "tie", "comment": "NUL \x00 and \U0001f600"})
        assert "12 of 12 annotations of 6 instances" in ada.get("/admin").text
        ada.get("/admin/disagreements")
        ada.get("/admin/adjudicate/1")
        ada.post("/admin/adjudicate/1", said())
        for path in ("/task/2147483648", "/task/99999999999999999999"):
            assert bob.client.get(path).status_code == 404
        assert ada.client.get("/admin/adjudicate/2147483648").status_code == 404
        ada.get("/admin/people")
        ada.post("/admin/people/%00", {"what": "disable"}, 404)
        bob.get("/settings")
        bob.post("/logout")
        bob.log_in("bob\x00", status=401)
        bob.log_in("bob")
    found = read_annotations(database)
    assert len(found) == 12 and add_annotations(database, found) == (0, 12)
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.events)) == 0
    database.close()
    again = open_database(postgres_database)
    assert again.study().name == "A study"
    again.close()
