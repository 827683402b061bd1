"""A study's database: a file of SQLite, or PostgreSQL by URL; opened, made, and migrated."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from eval.annotate.store import tables
from eval.annotate.store.migrate import migrate
from tulu_jax.errors import ConfigError, DataError
from tulu_jax.fields import check_fields, least, setting
from tulu_jax.files import user_path

CONNECTIONS = 48
"""Of a server to its file of SQLite, at most: no thread waits for one."""
POSTGRES_CONNECTIONS = 4
"""Of a server to PostgreSQL, each a process there: more of them take each other's time. No thread
holds two."""
BUSY_SECONDS = 20
TABLES_LOCK = 5001
"""PostgreSQL's number of the lock of who changes tables."""
OPEN, PAUSED, CLOSED = "open", "paused", "closed"


@dataclass(frozen=True)
class Settings:
    """How a study assigns its instances."""

    batch: int = setting(20, least(1), help="instances an annotator is given at once")
    guidelines: str = setting("", help="what annotators read first, in Markdown")

    def __post_init__(self) -> None:
        """Checks the fields."""
        check_fields(self)


@dataclass(frozen=True)
class Study:
    """The study itself. `secret` signs forms; it never leaves the server."""

    name: str
    state: str
    settings: Settings
    secret: str
    created: float


class Database:
    """Reads and writes of a study, each a transaction.

    A write is durable when its block has ended: SQLite's log is synced, PostgreSQL has committed.
    """

    def __init__(self, engine: Engine) -> None:
        """Takes an engine that `open_database` or `make_database` made."""
        self.engine = engine
        self._writing = threading.Lock() if engine.dialect.name == "sqlite" else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read by.

        PostgreSQL shows each statement what was committed before it, in a transaction or not:
        without one there are two journeys less.
        """
        with self.engine.connect() as connection:
            if self._writing is None:
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a transaction, committed at the end.

        Writers of SQLite wait here in turn: its own waiting sleeps, and lets some starve.
        """
        if self._writing is None:
            with self.engine.begin() as connection:
                yield connection
            return
        with self._writing, self.engine.connect() as connection:
            connection = connection.execution_options(tulu_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def change_tables(self) -> Iterator[Connection]:
        """A connection in a transaction that may change the tables, as no other does meanwhile.

        SQLite changes a table by making another in its place, so rows that point to it are looked
        at in the end.

        Raises: DataError for rows that would point to nothing; nothing is changed then.
        """
        if self._writing is None:
            with self.engine.begin() as connection:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(TABLES_LOCK)))
                yield connection
            return
        with self._writing, self.engine.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA foreign_keys=OFF")  # of no effect within a transaction
            try:
                connection = connection.execution_options(tulu_write=True)
                with connection.begin():
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                    if broken:
                        raise DataError("rows would point to nothing", got=f"{len(broken)}, first "
                                        f"of table {broken[0][0]}")  # fmt: skip
            finally:
                raw.execute("PRAGMA foreign_keys=ON")

    def study(self, connection: Connection | None = None, *, lock: bool = False) -> Study:
        """The study; with `lock` nobody else changes it, or draws instances, until the end."""
        query = sa.select(tables.study)
        if lock and self._writing is None:
            query = query.with_for_update()
        if connection is None:
            with self.read() as connection:
                row = connection.execute(query).one()
        else:
            row = connection.execute(query).one()
        return Study(row.name, row.state, Settings(**json.loads(row.settings)), row.secret,
                     row.created)  # fmt: skip

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()


def database_url(text: str) -> sa.URL:
    """The URL that a user means by an address of PostgreSQL, or by the path of a file.

    Raises: ConfigError.
    """
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(user_path(text, name="--db")))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("--db is no address of a database", expected=_EXPECTED) from error
    if url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigError("--db is of an unknown kind", got=url.drivername, expected=_EXPECTED)
    return url.set(drivername="postgresql+psycopg")


_EXPECTED = "a file, or postgresql://USER@HOST/NAME"


def _engine(url: sa.URL) -> Engine:
    try:
        if url.drivername.startswith("postgresql"):
            return sa.create_engine(
                url, pool_size=POSTGRES_CONNECTIONS, max_overflow=0, pool_pre_ping=True,
                connect_args={"connect_timeout": 10},
            )  # fmt: skip
        engine = sa.create_engine(
            url, hide_parameters=True, pool_size=CONNECTIONS, max_overflow=0,
            poolclass=sa.QueuePool,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )  # fmt: skip
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError("packages of human evaluation are missing", got=str(error),
                          do="pip install 'tulu-jax[annotate]'") from error  # fmt: skip
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any, _record: Any) -> None:
    """Lets readers go on while one writes, and a commit wait for the disk."""
    connection.isolation_level = None  # `_begin` begins
    for line in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {line}")


def _begin(connection: Connection) -> None:
    """A writer takes the lock at once: one that read before could not get it any more."""
    write = connection.get_execution_options().get("tulu_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def make_database(
    where: str, name: str, settings: Settings, instances: list[dict[str, Any]]
) -> Database:
    """A new database with a study of these instances, as rows of `tables.instances`.

    Raises:
      ConfigError: there is one already, or none can be made.
    """
    url = database_url(where)
    if url.drivername != "sqlite":
        return _fill(url, name, settings, instances)
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if path.exists():
            raise FileExistsError
        # Its owner alone may read it: password hashes and the secret lie there.
        os.close(os.open(whole, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _fill(url.set(database=str(whole)), name, settings, instances).close()
        os.link(whole, path)  # has its name when it is whole, and takes nobody else's
    except FileExistsError:
        raise ConfigError("there is a database already", at=path,
                          do="name a new file") from None  # fmt: skip
    finally:
        for end in ("", "-wal", "-shm"):
            Path(f"{whole}{end}").unlink(missing_ok=True)
    return Database(_engine(url))


def _fill(url: sa.URL, name: str, settings: Settings, instances: list[dict[str, Any]]) -> Database:
    database = Database(_engine(url))
    try:
        with _told(url):
            migrate(database, fresh=True)
            with database.write() as connection:
                connection.execute(
                    tables.study.insert(),
                    {"id": 1, "name": name, "state": OPEN, "settings": json.dumps(asdict(settings)),
                     "secret": secrets.token_hex(32), "created": time.time()},
                )  # fmt: skip
                if instances:
                    connection.execute(tables.instances.insert(), instances)
    except BaseException:
        database.close()
        raise
    return database


def is_made(where: str) -> bool:
    """Whether there is a study.

    Raises: ConfigError for a database that cannot be reached.
    """
    url = database_url(where)
    if url.drivername == "sqlite" and not Path(url.database or "").exists():
        return False
    database = Database(_engine(url))
    try:
        with _told(url), database.read() as connection:
            return MigrationContext.configure(connection).get_current_revision() is not None
    finally:
        database.close()


def open_database(where: str) -> Database:
    """The database of a study that was made, brought to this version's tables.

    Raises:
      ConfigError: it is not there, cannot be reached, or is of a newer version.
    """
    url = database_url(where)
    if url.drivername == "sqlite":
        _check_file(Path(url.database or ""))
    database = Database(_engine(url))
    try:
        with _told(url):
            migrate(database, fresh=False)
            database.study()
    except BaseException:
        database.close()
        raise
    return database


def _check_file(path: Path) -> None:
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
    except FileNotFoundError:
        raise ConfigError("there is no such database", at=path, do="make one: tulu annotate make"
                          ) from None  # fmt: skip
    except OSError as error:
        raise ConfigError("database cannot be read", got=error.strerror, at=path) from error
    if head != b"SQLite format 3\0":
        raise DataError("file is no database of SQLite", at=path)


@contextmanager
def _told(url: sa.URL) -> Iterator[None]:
    """Tells of a database's errors in words, without the password of its address."""
    at = url.database if url.drivername == "sqlite" else url.render_as_string(hide_password=True)
    try:
        yield
    except DBAPIError as error:
        what = str(error.orig).strip().splitlines()[:1]
        raise ConfigError("database cannot be used", got="".join(what)[:200], at=at,
                          expected="a study made by tulu annotate make") from error  # fmt: skip
    except SQLAlchemyError as error:
        raise ConfigError("database holds no study", got=type(error).__name__, at=at,
                          do="make one: tulu annotate make") from error  # fmt: skip
