#!/bin/sh
# Makes the passwords and keys of docker-compose.yml in deploy/secrets/; what is there already stays.
set -eu
umask 077
folder="$(dirname "$0")/secrets"
mkdir -p "$folder"

secret() { # 48 characters that need no quoting in an address
    head -c 36 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'
}

for name in postgres_password owner_password app_password auditor_password secret_key; do
    [ -s "$folder/$name" ] || secret >"$folder/$name"
done
printf 'postgresql://metadet_app:%s@postgres:5432/metadet' "$(cat "$folder/app_password")" >"$folder/database_url"
printf 'postgresql://metadet_owner:%s@postgres:5432/metadet' "$(cat "$folder/owner_password")" >"$folder/database_owner_url"
# The containers' user (10001) must be able to read what is mounted; the folder itself stays closed to others.
chmod 0644 "$folder"/*
echo "Secrets are in $folder. Keep them out of backups that others read."
