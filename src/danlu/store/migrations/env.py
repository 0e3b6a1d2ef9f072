"""Alembic's entry: run the migrations on the connection that `danlu.store.schema` opened."""

from alembic import context

from danlu.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column: the table is made anew
    transactional_ddl=False,  # the transaction is the caller's
)
context.run_migrations()
