"""The tables of a study. One database holds one study; times are seconds since 1970 in UTC.

A change here needs a migration in `eval/annotate/migrations/versions`, and a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", String(16), nullable=False),  # open, paused or closed
    Column("settings", Text, nullable=False),  # JSON
    Column("secret", String(64), nullable=False),
    Column("created", Double, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("reference", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("model_0", Text, nullable=False),
    Column("completion_0", Text, nullable=False),
    Column("model_1", Text, nullable=False),
    Column("completion_1", Text, nullable=False),
    Column("wanted", Integer, nullable=False),  # so many annotators
    Column("gold", Text),  # JSON, or NULL
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("handle", String(32), nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("folded", Text, nullable=False, unique=True),  # the name, whatever its case
    Column("role", String(16), nullable=False),  # annotator or admin
    Column("password", Text),  # argon2, or NULL: nobody logs in
    Column("disabled", Boolean, nullable=False),
    Column("settings", Text, nullable=False),  # JSON
    Column("created", Double, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token", String(64), nullable=False, unique=True),  # SHA-256
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("user_id", ForeignKey("users.id")),  # whose password it sets anew
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("used", Double),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token", String(64), primary_key=True),  # SHA-256
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("created", Double, nullable=False),
    Column("seen", Double, nullable=False),
)

assignments = Table(
    "assignments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("instance_id", ForeignKey("instances.id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("swapped", Boolean, nullable=False),  # completion 1 is shown as A
    Column("later", Boolean, nullable=False),
    Column("released", Boolean, nullable=False),  # given back without an answer
    Column("created", Double, nullable=False),
    UniqueConstraint("user_id", "instance_id"),
    UniqueConstraint("user_id", "position"),
)

answers = Table(
    "answers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("assignment_id", ForeignKey("assignments.id"), nullable=False),
    Column("key", String(80), nullable=False),  # the form's, with a hash of what it says
    Column("acceptable_a", Boolean, nullable=False),
    Column("acceptable_b", Boolean, nullable=False),
    Column("preference", String(24), nullable=False),  # as it was shown
    Column("quality", String(8), nullable=False),
    Column("comment", Text, nullable=False),
    Column("seconds", Double),
    Column("created", Double, nullable=False),
    UniqueConstraint("assignment_id", "key"),
)
"""Every answer that was sent; the last one of an assignment counts."""

adjudications = Table(
    "adjudications",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("instance_id", ForeignKey("instances.id"), nullable=False),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    Column("acceptable_0", Boolean, nullable=False),
    Column("acceptable_1", Boolean, nullable=False),
    Column("preference", String(24), nullable=False),  # a: completion 0
    Column("comment", Text, nullable=False),
    Column("created", Double, nullable=False),
    Index(None, "instance_id"),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", Double, nullable=False),
    Column("user_id", ForeignKey("users.id")),
    Column("what", Text, nullable=False),
)
"""What administrators did."""
