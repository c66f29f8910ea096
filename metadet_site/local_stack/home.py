"""METADET_HOME: one folder with the whole state of an installation, and the lock that keeps a second `up` out of it."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from metadet_site.env import env_path
from metadet_site.local_stack.errors import AlreadyRunning, LocalStackError

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# A Unix socket's path may be 107 bytes long; Postgres and Valkey add up to 20 to the folder's.
LONGEST_SOCKET_FOLDER = 80


@dataclass(frozen=True)
class Home:
    """Where everything of one installation lies."""

    folder: Path

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def valkey(self) -> Path:
        return self.folder / "valkey"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def secret_key(self) -> Path:
        return self.keys / "secret_key"

    @property
    def database_passwords(self) -> Path:
        return self.keys / "database_passwords.json"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def running(self) -> Path:
        """What commands in another terminal need to reach the running stack; there while it runs."""
        return self.folder / "running.json"

    @property
    def demo_loaded(self) -> Path:
        return self.folder / "demo_loaded"

    @property
    def lock(self) -> Path:
        return self.folder / "up.lock"


def open_home() -> Home:
    """The home that METADET_HOME names, with its folders made and its secret key there."""
    home = Home(env_path("METADET_HOME", REPOSITORY / "var"))
    try:
        home.folder.mkdir(parents=True, exist_ok=True)
        for private in (home.keys, home.logs, home.valkey):
            private.mkdir(mode=0o700, exist_ok=True)
        for open_to_children in (home.postgres, home.folder / "static"):
            open_to_children.mkdir(exist_ok=True)
        write_secret_once(home.secret_key, secrets.token_urlsafe(64))
    except OSError as error:
        raise LocalStackError(
            f"The folder {home.folder} cannot be used ({error.strerror}). "
            "Set METADET_HOME to a folder that you may write to."
        ) from error
    return home


def write_secret_once(path: Path, content: str) -> None:
    """Writes `content` for the owner's eyes only, unless the file is there already; never leaves half a file."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # link, not rename: of two starting at once the first one's secret stays
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def take_lock(home: Home, *, patience_s: float = 20.0) -> int:
    """Locks the home; answers the file descriptor that holds the lock.

    The children inherit the descriptor, so the lock is free only when the last of them is gone. Raises AlreadyRunning at
    once when another `up` lives, and after `patience_s` when only children of a dead one are left.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
        owner = _lock_owner(home)
        if owner is not None:
            os.close(descriptor)
            raise AlreadyRunning(
                f"metadet already runs in {home.folder} (process {owner}). Stop it there with Ctrl-C, or with "
                f"`kill {owner}`; or give this one a folder and a port of its own: METADET_HOME=... METADET_PORT=..."
            )
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise AlreadyRunning(
                f"Processes of an earlier start still use {home.folder} and do not end. `fuser -v {home.lock}` lists them."
            )
        time.sleep(0.2)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _lock_owner(home: Home) -> int | None:
    """The living process that wrote the lock, None when it is dead."""
    with contextlib.suppress(OSError, ValueError):
        owner = int(home.lock.read_text())
        os.kill(owner, 0)
        return owner
    return None


def make_socket_folder() -> Path:
    """A new folder, 0700, with a path short enough for sockets."""
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if parent and len(os.fsencode(parent)) + 20 < LONGEST_SOCKET_FOLDER and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="metadet-", dir=parent))
    raise LocalStackError("No short folder for the sockets of the database was found; set TMPDIR=/tmp.")


def publish(home: Home, environment: dict[str, str], *, socket_folder: Path) -> None:
    """Lets commands in another terminal reach this stack (see `published`). Readable for the owner alone."""
    content = json.dumps(
        {"environment": environment, "socket_folder": str(socket_folder), "mark": os.environ.get("METADET_STACK", "")},
        indent=1,
    )
    home.running.unlink(missing_ok=True)
    write_secret_once(home.running, content)


def published(folder: Path) -> dict[str, str]:
    """The addresses of the stack that runs in this METADET_HOME; empty when none does."""
    try:
        environment = json.loads((folder / "running.json").read_text())["environment"]
    except (OSError, ValueError, KeyError):
        return {}
    return {str(name): str(value) for name, value in environment.items()}


def withdraw(home: Home, *, of: str | None = None) -> None:
    """Removes what `publish` wrote and the socket folder it names; with `of` only what the stack of that mark wrote."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        running = json.loads(home.running.read_text())
        if of is not None and running["mark"] != of:
            return
        socket_folder = Path(running["socket_folder"])
        if socket_folder.name.startswith("metadet-"):
            shutil.rmtree(socket_folder, ignore_errors=True)
        home.running.unlink()
