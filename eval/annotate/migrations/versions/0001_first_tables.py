"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _key(table: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint("id", name=f"pk_{table}")


def _points(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")


def upgrade() -> None:
    """Makes all tables."""
    _study_and_instances()
    _people()
    _work()


def _study_and_instances() -> None:
    op.create_table(
        "study",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        _key("study"),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("model_0", sa.Text, nullable=False),
        sa.Column("completion_0", sa.Text, nullable=False),
        sa.Column("model_1", sa.Text, nullable=False),
        sa.Column("completion_1", sa.Text, nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("gold", sa.Text),
        _key("instances"),
    )


def _people() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("handle", sa.String(32), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password", sa.Text),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        _key("users"),
        sa.UniqueConstraint("handle", name="uq_users_handle"),
        sa.UniqueConstraint("folded", name="uq_users_folded"),
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("user_id", sa.Integer),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("used", sa.Double),
        _key("invitations"),
        sa.UniqueConstraint("token", name="uq_invitations_token"),
        _points("invitations", "user_id", "users"),
    )
    op.create_table(
        "sessions",
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("seen", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_sessions"),
        _points("sessions", "user_id", "users"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("user_id", sa.Integer),
        sa.Column("what", sa.Text, nullable=False),
        _key("events"),
        _points("events", "user_id", "users"),
    )


def _work() -> None:
    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("instance_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("swapped", sa.Boolean, nullable=False),
        sa.Column("later", sa.Boolean, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        _key("assignments"),
        _points("assignments", "user_id", "users"),
        _points("assignments", "instance_id", "instances"),
        sa.UniqueConstraint("user_id", "instance_id", name="uq_assignments_user_id_instance_id"),
        sa.UniqueConstraint("user_id", "position", name="uq_assignments_user_id_position"),
    )
    op.create_index("ix_assignments_instance_id", "assignments", ["instance_id"])
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("assignment_id", sa.Integer, nullable=False),
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("acceptable_a", sa.Boolean, nullable=False),
        sa.Column("acceptable_b", sa.Boolean, nullable=False),
        sa.Column("preference", sa.String(24), nullable=False),
        sa.Column("quality", sa.String(8), nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double),
        sa.Column("created", sa.Double, nullable=False),
        _key("answers"),
        _points("answers", "assignment_id", "assignments"),
        sa.UniqueConstraint("assignment_id", "key", name="uq_answers_assignment_id_key"),
    )
    op.create_table(
        "adjudications",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("instance_id", sa.Integer, nullable=False),
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column("acceptable_0", sa.Boolean, nullable=False),
        sa.Column("acceptable_1", sa.Boolean, nullable=False),
        sa.Column("preference", sa.String(24), nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        _key("adjudications"),
        _points("adjudications", "instance_id", "instances"),
        _points("adjudications", "user_id", "users"),
    )
    op.create_index("ix_adjudications_instance_id", "adjudications", ["instance_id"])
