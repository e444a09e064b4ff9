"""Backup and restore of an installation: PostgreSQL and the object store, consistent with one another (docs/backup.md)."""
