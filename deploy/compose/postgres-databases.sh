#!/bin/sh
# Runs once, when the data directory is made: a role for each user of this server, none of them a superuser.
set -eu
psql --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
  --set hotswap="$HOTSWAP_DB_PASSWORD" --set temporal="$TEMPORAL_DB_PASSWORD" <<'SQL'
CREATE ROLE hotswap LOGIN PASSWORD :'hotswap';
CREATE ROLE temporal LOGIN PASSWORD :'temporal';
CREATE DATABASE hotswap OWNER hotswap;
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;
REVOKE ALL ON DATABASE hotswap, temporal, temporal_visibility FROM PUBLIC;
SQL
