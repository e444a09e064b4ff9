#!/bin/sh
# Temporal's two schemas. SQL_* say where; the databases exist (postgres-databases.sh). Repeats change nothing.
set -eu
for database in temporal:temporal temporal_visibility:visibility; do
  set -- --plugin "$SQL_PLUGIN" --endpoint "$SQL_HOST" --port "$SQL_PORT" --user "$SQL_USER" --database "${database%%:*}"
  temporal-sql-tool "$@" setup-schema --version 0.0
  temporal-sql-tool "$@" update-schema \
    --schema-dir "/etc/temporal/schema/postgresql/v12/${database##*:}/versioned"
done
