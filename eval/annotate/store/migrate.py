"""Brings a study's tables to the version of the program: all changes, or none.

Each version is a file of `eval/annotate/migrations/versions`. All that a study lacks is done in one
transaction, so that an upgrade that fails or is killed leaves the study as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from tulu_jax.errors import ConfigError

if TYPE_CHECKING:
    from eval.annotate.store.database import Database

FOLDER = Path(__file__).parent.parent / "migrations"


def migrate(database: Database, *, fresh: bool) -> None:
    """Makes the tables of a new study, or brings those of an older one to this version.

    Args:
      database: the study's.
      fresh: whether there must be no study yet.

    Raises:
      ConfigError: there is a study, or none, or it is of a newer version of the program.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    script = ScriptDirectory.from_config(config)
    with database.read() as connection:
        if _is_current(connection, script, fresh=fresh):
            return
    with database.change_tables() as connection:
        if _is_current(connection, script, fresh=fresh):  # another process was quicker
            return
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _is_current(connection: Connection, script: ScriptDirectory, *, fresh: bool) -> bool:
    """Whether there is nothing to do.

    Raises: ConfigError, as `migrate`.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None and not fresh:
        raise ConfigError("database holds no study", do="make one: tulu annotate make")
    if found is not None and fresh:
        raise ConfigError("there is a study in this database already", do="name another database")
    if found is not None and found not in {one.revision for one in script.walk_revisions()}:
        raise ConfigError("database is of a newer version of tulu-jax", got=f"revision {found}",
                          expected=f"{script.get_current_head()} at most",
                          do="install that version")  # fmt: skip
    return found == script.get_current_head()
