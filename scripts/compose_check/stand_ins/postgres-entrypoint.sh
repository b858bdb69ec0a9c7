#!/bin/sh
# What the official image's entrypoint does with these three variables, and no more: a cluster on an
# empty volume, its database, and passwords asked for from everywhere but the container itself.
set -eu
: "${POSTGRES_PASSWORD:?must not be empty}"
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=$(mktemp)
    printf '%s' "$POSTGRES_PASSWORD" > "$password"
    initdb --username="$user" --pwfile="$password" --auth-local=trust \
        --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    rm "$password"
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\";" | postgres --single -D "$PGDATA" postgres
    fi
fi
exec "$@" -c listen_addresses='*'
