"""CPU seconds of the whole server per 1,000 authorised tiles, beside a bare WSGI callable and, if installed, nginx.

    python benchmarks/tiles.py [--slide FILE] [--tiles 4000] [--connections 8] [--json]

One slide is prepared, its tiles are then asked for over keep-alive connections on this machine: `once` every tile once
after a server start (what panning is), `warm` the same tiles again. CPU time is read from /proc for the server's process
tree, so the client's own cost does not count; latency includes the client and is an indication only. Peers run one after
the other in the same minutes: compare rows of one run, not of two.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import tifffile

REPOSITORY = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "benchmark" * 8

BARE = """
from pathlib import Path
from slides.wsi.tile_store import TileStore
store = TileStore.load(Path({folder!r}))
def application(environ, start_response):
    level, name = environ["PATH_INFO"].rsplit("/", 2)[-2:]
    col, row = name[:-4].split("_")
    tile = store.tile(int(level), int(col), int(row))
    start_response("200 OK", [("Content-Type", "image/jpeg"), ("ETag", tile.etag), ("Content-Length", str(len(tile.data)))])
    return [tile.data]
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; sendfile on; keepalive_requests 1000000;
  open_file_cache max=20000; server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}
"""


@dataclass(frozen=True)
class Row:
    peer: str
    run: str
    tiles: int
    cpu_s_per_1000: float
    tiles_per_s: float
    p50_ms: float
    p99_ms: float
    kb_per_tile: float


def make_slide(path: Path, *, side: int = 12_000) -> None:
    """Speckled tissue that compresses to about 19 kB a tile, as stained tissue at 20x does."""
    noise = np.random.default_rng(1)
    patch = noise.normal((150, 90, 160), 22, (2048, 2048, 3)).clip(0, 255).astype(np.uint8)
    picture = np.tile(patch, (-(-side // 2048), -(-side // 2048), 1))[:side, :side]
    description = f"Aperio Image Library v11\\n{side}x{side}|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(
            picture, tile=(256, 256), photometric="rgb", compression="jpeg", compressionargs={"level": 60},
            description=description, metadata=None,
        )  # fmt: skip


def cpu_seconds(root: int) -> float:
    """User and system time of a process and all its living descendants."""
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.name))
        used[int(entry.name)] = int(fields[11]) + int(fields[12])
    waiting, total = [root], 0
    while waiting:
        pid = waiting.pop()
        total += used.get(pid, 0)
        waiting += children.get(pid, [])
    return total / TICKS


@contextmanager
def serving(command: list[str], port: int, env: dict[str, str]) -> Iterator[int]:
    process = subprocess.Popen(
        command, env=env, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                link.request("HEAD", "/tiles/")
                link.getresponse()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} did not start.") from None
                time.sleep(0.1)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask_all(port: int, paths: list[str], cookie: Callable[[], str], connections: int) -> tuple[list[float], int]:
    """(seconds of each request, bytes received)."""
    todo = iter(paths)
    taking = threading.Lock()
    seconds: list[float] = []
    received = [0]

    def work() -> None:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while True:
            with taking:
                path = next(todo, None)
            if path is None:
                return link.close()
            begun = time.perf_counter()
            link.request("GET", path, headers={"Cookie": cookie()})
            answer = link.getresponse()
            body = answer.read()
            seconds.append(time.perf_counter() - begun)
            received[0] += len(body)
            if answer.status != 200:
                raise SystemExit(f"{path} was answered with {answer.status}")

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, received[0]


def measure(peer: str, pid: int, port: int, paths: list[str], cookie: Callable[[], str], connections: int) -> list[Row]:
    rows = []
    for run in ("once", "warm"):
        before, begun = cpu_seconds(pid), time.perf_counter()
        seconds, received = ask_all(port, paths, cookie, connections)
        wall = time.perf_counter() - begun
        cuts = statistics.quantiles(seconds, n=100)
        rows.append(
            Row(
                peer,
                run,
                len(paths),
                round((cpu_seconds(pid) - before) / len(paths) * 1000, 4),
                round(len(paths) / wall),
                round(cuts[49] * 1000, 2),
                round(cuts[98] * 1000, 2),
                round(received / len(paths) / 1024, 1),
            )
        )
    return rows


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def granian(port: int, application: str) -> list[str]:
    return [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--blocking-threads", "4", "--no-ws", "--log-level", "error", application),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--tiles", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="metadet-tiles-"))
    try:
        rows = run(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {options.connections} connections")
    print(f"{'peer':<28}{'run':<6}{'CPU s/1000':>11}{'tiles/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'KB':>6}")
    for row in rows:
        print(
            f"{row.peer:<28}{row.run:<6}{row.cpu_s_per_1000:>11.4f}{row.tiles_per_s:>9.0f}"
            f"{row.p50_ms:>8.2f}{row.p99_ms:>8.2f}{row.kb_per_tile:>6.1f}"
        )


def run(folder: Path, options: argparse.Namespace) -> list[Row]:
    env = os.environ | {
        "METADET_HOME": str(folder),
        "METADET_SECRET_KEY": SECRET,
        "DJANGO_SETTINGS_MODULE": "metadet_site.settings",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(folder)]),
        "PYTHONWARNINGS": "ignore",
    }
    os.environ.update(env)
    sys.path.insert(0, str(REPOSITORY))
    import django

    django.setup()
    from slides import tile_access
    from slides.wsi import sandbox
    from slides.wsi.tile_store import TileStore

    slide = options.slide or folder / "made.svs"
    if options.slide is None:
        make_slide(slide)
    slide_id, store = str(uuid.uuid4()), "tiles-1"
    output, apart = folder / "slides" / slide_id / store, folder / "apart"
    output.mkdir(parents=True)
    apart.mkdir()
    sandbox.prepare(slide.resolve(), output, associated_dir=apart)
    opened = TileStore.load(output)
    names = [f"{n.index}/{col}_{row}.jpg" for n in opened.levels for row in range(n.rows) for col in range(n.cols)]
    order = np.random.default_rng(2).permutation(len(names))
    names = [names[number] for number in islice(cycle(order), min(options.tiles, len(names)))]
    partition = tile_access.partition_of("a log-in")
    prefix = f"{tile_access.cookie_path(partition, slide_id)}{store}/"

    def cookie() -> str:
        """A new token every 30 s, as the page asks for it, beside the cookies that a browser sends along."""
        until = (int(time.time()) // 30 + 2) * 30
        claims = tile_access.Claims("0" * 32, until, until + 3600, 0.5, 0.5)
        token = tile_access.sign(claims, partition=partition, slide_id=slide_id, store=store)
        return f"csrftoken={'c' * 32}; sessionid={'s' * 32}; {tile_access.COOKIE_NAME}={token}"

    kept: dict[int, str] = {}

    def cookie_now() -> str:
        period = int(time.time()) // 30
        if period not in kept:
            kept[period] = cookie()
        return kept[period]

    rows: list[Row] = []
    port = free_port()
    with serving(granian(port, "metadet_site.wsgi:application"), port, env) as pid:
        rows += measure(
            "metadet, authorised", pid, port, [prefix + name for name in names], cookie_now, options.connections
        )
    (folder / "bare_tiles.py").write_text(BARE.format(folder=str(output)))
    port = free_port()
    with serving(granian(port, "bare_tiles:application"), port, env) as pid:
        rows += measure(
            "bare WSGI, no check", pid, port, ["/" + name for name in names], lambda: "", options.connections
        )
    if nginx := shutil.which("nginx"):
        for name in names:
            file = folder / "www" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            level, place = name.split("/")
            col, row = place[:-4].split("_")
            file.write_bytes(opened.tile(int(level), int(col), int(row)).data)
        port = free_port()
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port))
        with serving([nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)], port, env) as pid:
            rows += measure("nginx, static files", pid, port, ["/" + n for n in names], lambda: "", options.connections)
    return rows


if __name__ == "__main__":
    main()
