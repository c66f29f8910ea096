"""What every test may ask for: the database, the reference data."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from metadet_site.env import database_from_url
from metadet_site.local_stack.postgres import Cluster
from metadet_site.local_stack.temporary import temporary_cluster

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST_TEST_ID = 100


@pytest.fixture(scope="session")
def database_cluster() -> Iterator[Cluster]:
    """An embedded PostgreSQL of this test process alone."""
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, request: pytest.FixtureRequest
) -> None:
    """Tests run as the owner of the tables (they make and empty them); `as_role` lends them the eyes of the product."""
    if "DATABASE_URL" not in os.environ:
        cluster: Cluster = request.getfixturevalue("database_cluster")
        settings.DATABASES["default"].update(database_from_url(cluster.url("metadet_owner")))


@pytest.fixture(scope="session", autouse=True)
def emptying_passes_the_trail() -> Iterator[None]:
    """Transactional tests empty tables by TRUNCATE, which the trail refuses: its triggers are off for just that moment."""
    operations = type(connection.ops)
    plain_flush = operations.sql_flush

    def flush_with_refusals_off(self, *args: object, **kwargs: object) -> list[str]:
        statements = plain_flush(self, *args, **kwargs)
        if not statements:
            return statements
        with connection.cursor() as cursor:
            cursor.execute(
                """SELECT tgrelid::regclass::text, quote_ident(tgname), tgenabled = 'A' FROM pg_trigger
                   WHERE NOT tgisinternal AND (tgtype & 32) <> 0 AND tgenabled <> 'D'"""
            )
            refusals = cursor.fetchall()
        return [
            *(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}" for table, trigger, _ in refusals),
            *statements,
            *(
                f"ALTER TABLE {table} ENABLE {'ALWAYS ' if always else ''}TRIGGER {trigger}"
                for table, trigger, always in refusals
            ),
        ]

    operations.sql_flush = flush_with_refusals_off
    yield
    operations.sql_flush = plain_flush


@pytest.fixture
def as_role(db: None) -> Callable[[str], AbstractContextManager[None]]:
    """`with as_role("metadet_app"):` runs its block with that role's rights."""

    @contextmanager
    def acting(role: str) -> Iterator[None]:
        with connection.cursor() as cursor:
            cursor.execute(f"SET ROLE {connection.ops.quote_name(role)}")
            try:
                yield
            finally:
                if not connection.needs_rollback:
                    cursor.execute("RESET ROLE")

    return acting


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """The folder of reference slides and patches, which is not part of the repository."""
    folder = Path(os.environ.get("METADET_REFERENCE_DATA", REPOSITORY / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set METADET_REFERENCE_DATA to their folder")
    return folder


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Megabytes in the name of a test would fill the log of its failure."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_TEST_ID:
        return f"{argname} of {len(val)}"
    return None
