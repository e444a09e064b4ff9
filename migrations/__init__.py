"""Alembic scripts of the PostgreSQL schema and the door to run them: migrations.runner."""
