"""Whether the embedded database has all migrations of this code already: `migrate` costs a start three seconds."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psycopg

from metadet_site.local_stack.home import REPOSITORY
from metadet_site.local_stack.postgres import SUPERUSER, Cluster

# Packages that bring migrations of their own.
PACKAGES = ("django", "django-axes")


def is_up_to_date(cluster: Cluster) -> bool:
    """True only when both the migrations in the code and those in the database are the ones of the last `migrate`."""
    try:
        return _stamp(cluster).read_text() == _state(cluster)
    except OSError:
        return False


def remember(cluster: Cluster) -> None:
    _stamp(cluster).write_text(_state(cluster))


def _stamp(cluster: Cluster) -> Path:
    return cluster.folder / "migrated"


def _state(cluster: Cluster) -> str:
    digest = hashlib.sha256(json.dumps([_version(package) for package in PACKAGES]).encode())
    for path in sorted(REPOSITORY.glob("*/migrations/*.py")):
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    with cluster.connect(SUPERUSER, database="metadet") as connection:
        try:
            applied = connection.execute("SELECT id, app, name, applied::text FROM django_migrations ORDER BY id")
            digest.update(json.dumps(applied.fetchall()).encode())
        except psycopg.errors.UndefinedTable:
            digest.update(b"none")
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
