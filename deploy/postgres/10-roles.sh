#!/bin/sh
# Run once by the database's image when its volume is new: the roles of roles.sql and their passwords.
set -eu
psql --quiet -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f /opt/metadet/roles.sql
for role in owner app auditor; do
    psql --quiet -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
        -v role="metadet_$role" -v password="$(cat "/run/secrets/${role}_password")" <<'SQL'
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
