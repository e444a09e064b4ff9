"""Alembic's door into the scripts: migrations.runner hands over the connection and holds the transaction and the lock."""

from alembic import context

from hotswap.adapters.postgres.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run `python -m migrations upgrade`: it takes the lock that the scripts rely on")

context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
