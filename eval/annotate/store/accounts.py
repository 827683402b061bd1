"""Accounts: passwords hashed with argon2, invitations that expire, sessions.

Of invitations and sessions the database holds SHA-256, so that who reads it cannot use them.
"""

from __future__ import annotations

import json
import secrets
import time
import unicodedata
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy.engine import Connection, Row

from eval.annotate.store.database import Database
from eval.annotate.store.tables import events, invitations, sessions, users
from tulu_jax.errors import ConfigError
from tulu_jax.files import sha256

ANNOTATOR, ADMIN = "annotator", "admin"
ROLES = (ANNOTATOR, ADMIN)
DAY = 24 * 3600.0
INVITATION_DAYS = 7
IDLE_SECONDS = 12 * 3600.0
SESSION_SECONDS = 7 * DAY
SEEN_EVERY = 600.0
SHORTEST, LONGEST = 10, 200
"""Characters of a password."""
NAME_LENGTH = 64

HASHER = PasswordHasher()
_nobody: list[str] = []
"""A hash that is compared with where there is no account: it takes as long."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with an account. `handle` names the account in pages without telling its id."""

    id: int
    handle: str
    name: str
    role: str
    disabled: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_admin(self) -> bool:
        """Whether the pages of administrators are open."""
        return self.role == ADMIN


def user_of(row: Row[Any]) -> User:
    """The user in a row of `tables.users`."""
    return User(row.id, row.handle, row.name, row.role, row.disabled, json.loads(row.settings))


def check_name(name: str) -> str:
    """The name as it is kept.

    Raises: ConfigError for one that is empty, too long, or has characters that do not show.
    """
    name = unicodedata.normalize("NFC", name).strip()
    if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise ConfigError("impossible name of a user", got=repr(name)[:80],
                          expected=f"1 to {NAME_LENGTH} printable characters")  # fmt: skip
    return name


def fold(name: str) -> str:
    """What names are compared by."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def check_password(password: str, name: str) -> None:
    """Refuses a password that is easily guessed.

    Raises: ConfigError, without the password.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError("impossible password", got=f"{len(password)} characters",
                          expected=f"{SHORTEST} to {LONGEST}")  # fmt: skip
    if fold(name) in fold(password) or len(set(password)) < 4:
        raise ConfigError("password is easily guessed",
                          expected="another than the name or one character again")  # fmt: skip


def add_user(
    connection: Connection, name: str, role: str, password: str | None, *, disabled: bool = False
) -> User:
    """A new account; without password nobody can log in to it.

    Raises: ConfigError where the name is taken or impossible.
    """
    name = check_name(name)
    if find_user(connection, name) is not None:
        raise ConfigError("name is taken", got=repr(name), do="choose another")
    values = {"handle": secrets.token_hex(8), "name": name, "folded": fold(name), "role": role,
              "password": None if password is None else HASHER.hash(password),
              "disabled": disabled, "settings": "{}", "created": time.time()}  # fmt: skip
    key = connection.execute(users.insert(), values).inserted_primary_key
    assert key is not None
    return User(key[0], values["handle"], name, role, disabled)


def find_user(connection: Connection, name: str) -> User | None:
    """The account of this name, whatever its case."""
    row = connection.execute(sa.select(users).where(users.c.folded == fold(name))).one_or_none()
    return user_of(row) if row else None


def log_in(database: Database, name: str, password: str) -> User | None:
    """The user whose name and password these are. An unknown name takes as long as a known one."""
    with database.read() as connection:
        row = connection.execute(sa.select(users).where(users.c.folded == fold(name))).one_or_none()
    if not _nobody:
        _nobody.append(HASHER.hash(secrets.token_hex(16)))
    known = row if row is not None and row.password and not row.disabled else None
    try:
        HASHER.verify(_nobody[0] if known is None else known.password, password[:1000])
    except (Argon2Error, InvalidHashError):
        return None
    return None if known is None else user_of(known)


def set_disabled(connection: Connection, user_id: int, disabled: bool) -> None:
    """Shuts an account, and ends its sessions; or opens it again."""
    connection.execute(users.update().where(users.c.id == user_id).values(disabled=disabled))
    if disabled:
        connection.execute(sessions.delete().where(sessions.c.user_id == user_id))


def set_settings(connection: Connection, user_id: int, settings: dict[str, Any]) -> None:
    """Keeps what a user has chosen."""
    connection.execute(
        users.update().where(users.c.id == user_id).values(settings=json.dumps(settings))
    )


def invite(
    connection: Connection,
    name: str,
    role: str,
    *,
    days: float = INVITATION_DAYS,
    user: User | None = None,
) -> str:
    """A new invitation; its token, which is not kept. With `user` it sets that one's password.

    Raises: ConfigError where the name is impossible or taken.
    """
    name = check_name(name)
    if user is None and find_user(connection, name) is not None:
        raise ConfigError("name is taken", got=repr(name), do="choose another")
    token, now = secrets.token_urlsafe(32), time.time()
    connection.execute(
        invitations.insert(),
        {"token": sha256(token), "name": name, "role": role, "created": now,
         "expires": now + days * DAY, "user_id": user.id if user else None},
    )  # fmt: skip
    return token


def find_invitation(connection: Connection, token: str) -> Row[Any] | None:
    """The invitation, while it is good: not used and not expired."""
    return connection.execute(
        sa.select(invitations).where(
            invitations.c.token == sha256(_plain(token)),
            invitations.c.used.is_(None),
            invitations.c.expires > time.time(),
        )
    ).one_or_none()


def accept(database: Database, token: str, password: str) -> User | None:
    """Makes the account of an invitation, once; None where that is not good any more.

    Raises: ConfigError for a bad password, or where the name was taken meanwhile.
    """
    with database.read() as connection:
        found = find_invitation(connection, token)
    if found is None:
        return None
    check_password(password, found.name)
    hashed = HASHER.hash(password)  # outside of the transaction: it takes long
    with database.write() as connection:
        used = connection.execute(
            invitations.update()
            .where(invitations.c.id == found.id, invitations.c.used.is_(None))
            .values(used=time.time())
        )
        if used.rowcount != 1:
            return None
        if found.user_id is None:
            user = add_user(connection, found.name, found.role, None)
        else:
            connection.execute(sessions.delete().where(sessions.c.user_id == found.user_id))
            row = connection.execute(sa.select(users).where(users.c.id == found.user_id)).one()
            user = user_of(row)
        connection.execute(users.update().where(users.c.id == user.id).values(password=hashed))
    return user


def start_session(database: Database, user: User) -> str:
    """A new session's token; old ones that ended are cleared away."""
    token, now = secrets.token_urlsafe(32), time.time()
    with database.write() as connection:
        connection.execute(
            sessions.delete().where(
                sa.or_(sessions.c.created < now - SESSION_SECONDS,
                       sessions.c.seen < now - IDLE_SECONDS)
            )
        )  # fmt: skip
        connection.execute(
            sessions.insert(),
            {"token": sha256(token), "user_id": user.id, "created": now, "seen": now},
        )
    return token


def find_session(database: Database, token: str) -> User | None:
    """Whose session it is; None where it ended, or the account is shut."""
    hashed, now = sha256(_plain(token)), time.time()
    with database.read() as connection:
        row = connection.execute(_SESSION, {"hashed": hashed}).one_or_none()
    if row is None or row.disabled:
        return None
    if row.session_created < now - SESSION_SECONDS or row.seen < now - IDLE_SECONDS:
        return None
    if row.seen < now - SEEN_EVERY:
        with database.write() as connection:
            connection.execute(sessions.update().where(sessions.c.token == hashed).values(seen=now))
    return user_of(row)


_SESSION = (
    sa.select(users, sessions.c.seen, sessions.c.created.label("session_created"))
    .join(sessions, sessions.c.user_id == users.c.id)
    .where(sessions.c.token == sa.bindparam("hashed"))
)


def end_session(database: Database, token: str) -> None:
    """Ends a session."""
    with database.write() as connection:
        connection.execute(sessions.delete().where(sessions.c.token == sha256(_plain(token))))


def note(connection: Connection, user: User | None, what: str) -> None:
    """Writes down what an administrator did."""
    connection.execute(
        events.insert(),
        {"created": time.time(), "user_id": user.id if user else None, "what": what},
    )


def _plain(token: str) -> str:
    """The token, whatever characters were sent for one."""
    return token.encode("ascii", "backslashreplace").decode()[:200]
