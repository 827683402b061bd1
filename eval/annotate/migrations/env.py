"""Where alembic begins: it is called with a connection, never from a command line of its own."""

from alembic import context

from eval.annotate.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
