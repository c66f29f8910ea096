"""CPU seconds of the whole server per 1,000 tiles: metadet with full authorisation beside others, in one run.

    python benchmarks/tiles.py [--slide FILE] [--tiles 4000] [--rounds 3] [--connections 8 32] [--json]
    python benchmarks/tiles.py --viewers 200 [--seconds 30] [--beside "COMMAND"]
    python benchmarks/tiles.py --viewers 200 --stack HOME PORT      the stack that runs there, with an upload and a detection

One slide is prepared; every peer then serves the same full-resolution tiles of it over keep-alive connections of this
machine: `once` asks for every tile once after a server start (what panning is), `warm` for the same tiles again and
again. Peers: a WSGI callable that only reads the tile (what the server itself costs), large_image's TIFF source as it
passes tiles through (`icc off`) and as it comes (it encodes anew), each as the least server that can be written around
it; nginx with every tile as a file, and nginx before metadet as deploy/nginx has it, where nginx is installed.

The server stands on one core and the client on another. The client is wrk where it is installed (Debian: wrk), else
threads of this process, which are so slow that the server sleeps between requests: a server woken for every single
request costs twice as much, so figures of the two clients must not be compared. CPU time is that of the server's process
tree, from /proc; the client's own does not count. Peers take turns in every round; ratios are made within a round.
The peers' threads run as the system lets them, ours as metadet_site/wsgi.py says: so a tile of ours may cost less than one
of the callable that only reads it.

--viewers is another run: so many people who each move a quarter of a screen every two seconds, with six connections and
a log-in of their own, on all cores, and how long a tile takes from the moment it is wanted. With --stack the server is
that of `make run`, the slide its largest one, and the stack takes an upload and detects on that slide meanwhile.
"""

import argparse
import asyncio
import base64
import http.client
import json
import logging
import os
import random
import resource
import shlex
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
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyvips

if TYPE_CHECKING:
    from slides.wsi.tile_store import TileStore

REPOSITORY = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "benchmark" * 8
STORE = "tiles-1"
SLIDE_QUALITY = 80
US = "metadet, authorised"

BARE = """
from pathlib import Path
from slides.wsi.tile_store import TileStore
store = TileStore.load(Path({store!r}))
def application(environ, start_response):
    level, name = environ["PATH_INFO"].rsplit("/", 2)[-2:]
    col, row = name[:-4].split("_")
    tile = store.tile(int(level), int(col), int(row))
    start_response("200 OK", [("Content-Type", "image/jpeg"), ("ETag", tile.etag), ("Content-Length", str(len(tile.data)))])
    return [tile.data]
"""

LARGE_IMAGE = """
import large_image_source_tiff
source = large_image_source_tiff.open({slide!r}, encoding="JPEG", jpegQuality=95{style})
finest = source.levels - 1
def application(environ, start_response):
    col, row = environ["PATH_INFO"].rsplit("/", 1)[-1][:-4].split("_")
    tile = source.getTile(int(col), int(row), finest)
    start_response("200 OK", [("Content-Type", "image/jpeg"), ("Content-Length", str(len(tile)))])
    return [bytes(tile)]
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; sendfile on; keepalive_requests 1000000; types {{ image/jpeg jpg; }}
  open_file_cache max=20000; server {{ listen 127.0.0.1:{port}; root {folder}/www; }} }}
"""

WRK = """
local paths, count, answered = {}, 0, 0
local stop_after = tonumber(os.getenv("STOP_AFTER"))
for line in io.lines(os.getenv("PATHS")) do
  paths[#paths + 1] = wrk.format("GET", line, {["Host"] = "localhost", ["Cookie"] = os.getenv("COOKIE"), ["Accept"] = "image/avif,image/webp,*/*",
    ["Accept-Encoding"] = "gzip, deflate, br", ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64)"})
end
request = function() count = count + 1; return paths[(count - 1) % #paths + 1] end
if stop_after then
  response = function()
    answered = answered + 1
    if answered == stop_after then wrk.thread:stop(); io.write("ENOUGH\\n"); io.flush() end
  end
end
done = function(summary, latency)
  local bad = summary.errors
  io.write(string.format("RESULT %d %d %d %d %.3f %.3f\\n", summary.requests, summary.bytes, summary.duration,
    bad.connect + bad.read + bad.write + bad.status + bad.timeout, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


EDGE = """
daemon off; {user} worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; sendfile on; keepalive_requests 1000000;
  open_file_cache max=20000; upstream metadet {{ server 127.0.0.1:{behind}; keepalive 32; }} {http}
  server {{ listen 127.0.0.1:{port}; set $edge_key "{key}"; set $metadet_revoked {folder}/revoked;
    proxy_http_version 1.1; proxy_set_header Connection ""; {server}
    location / {{ proxy_pass http://metadet; }} }} }}
"""


@dataclass(frozen=True)
class Asked:
    """What a client saw: bytes with headers where wrk counts them."""

    requests: int
    seconds: float
    bytes: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Row:
    peer: str
    run: str
    round: int
    requests: int
    cpu_s_per_1000: float
    tiles_per_s: float
    p50_ms: float
    p99_ms: float
    kb_per_tile: float


@dataclass(frozen=True)
class Peer:
    """`before`: the command of a second server (its port, the port of the first) that stands before the first."""

    name: str
    command: Callable[[int], list[str]]
    paths: list[str]
    authorised: bool = False
    before: Callable[[int, int], list[str]] | None = None


# -- the slide and its servers --------------------------------------------------------------------------


def make_slide(path: Path, *, side: int = 16_000) -> None:
    """Speckled tissue of about 19 kB a tile, as stained tissue has at 20x: YCbCr 4:2:0 with shared tables, as scanners write."""
    noise = np.random.default_rng(1)
    coarse = noise.normal((150, 90, 160), 30, (1024, 1024, 3)).clip(0, 255).astype(np.uint8)
    patch = pyvips.Image.new_from_array(coarse).resize(2, kernel="linear")
    picture = patch.replicate(-(-side // 2048), -(-side // 2048)).crop(0, 0, side, side).copy(xres=2000, yres=2000)
    picture.tiffsave(
        str(path), tile=True, tile_width=256, tile_height=256, compression="jpeg", Q=SLIDE_QUALITY, bigtiff=True
    )


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


def on_core(core: int | None) -> Callable[[], None]:
    """What a child does before it begins: keep to one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))

    def keep() -> None:
        if core is not None and len(cores) > 1:
            os.sched_setaffinity(0, {cores[core % len(cores)]})

    return keep


@contextmanager
def serving(command: list[str], port: int, env: dict[str, str], core: int | None = 0) -> Iterator[int]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        env=env,
        cwd=REPOSITORY,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
        preexec_fn=on_core(core),
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                link.request("HEAD", "/tiles/")
                link.getresponse().read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} did not start.") from None
                time.sleep(0.1)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def granian(application: str) -> Callable[[int], list[str]]:
    """The options of metadet_site.local_stack.up, one worker."""
    from metadet_site.local_stack.up import WEB_OPTIONS, web_threads

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--blocking-threads", str(web_threads()), *WEB_OPTIONS, "--log-level", "error"),
            application,
        ]

    return command


# -- clients --------------------------------------------------------------------------------------------


def ask_by_wrk(
    folder: Path, port: int, paths: list[str], cookie: str, connections: int, stop_after: int | None
) -> Asked:
    (folder / "paths.txt").write_text("".join(path + "\n" for path in paths))
    (folder / "ask.lua").write_text(WRK)
    env = os.environ | {"PATHS": str(folder / "paths.txt"), "COOKIE": cookie, "STOP_AFTER": str(stop_after or "")}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{60 if stop_after else 4}s", "-s", str(folder / "ask.lua")]
    begun = time.monotonic()
    client = subprocess.Popen(
        [*command, f"http://127.0.0.1:{port}"], env=env, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(1)
    )
    assert client.stdout is not None
    said, seconds = "", 0.0
    for line in client.stdout:
        said += line
        if line == "ENOUGH\n":  # wrk itself knows no end but that of its time
            seconds = time.monotonic() - begun
            client.send_signal(signal.SIGINT)
    client.wait()
    requests, received, microseconds, errors, p50, p99 = said.rsplit("RESULT", 1)[1].split()
    if int(errors):
        raise SystemExit(f"{errors} of {requests} requests to port {port} were not answered as they should be.")
    return Asked(int(requests), seconds or int(microseconds) / 1e6, int(received), float(p50), float(p99))


def ask_by_threads(port: int, paths: list[str], cookie: str, connections: int, stop_after: int | None) -> Asked:
    todo = iter(paths if stop_after is None else paths[:stop_after])
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
            link.request("GET", path, headers={"Cookie": cookie})
            answer = link.getresponse()
            body = answer.read()
            seconds.append(time.perf_counter() - begun)
            received[0] += len(body)
            if answer.status != 200:
                raise SystemExit(f"{path} was answered with {answer.status}")

    begun = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begun
    cuts = statistics.quantiles(seconds, n=100)
    return Asked(len(seconds), wall, received[0], cuts[49] * 1000, cuts[98] * 1000)


# -- runs -----------------------------------------------------------------------------------------------


class Opened:
    """A tile store, its addresses and the cookies that open them."""

    slide_id: str
    store_name: str
    store: "TileStore"

    def prefix(self, log_in: str) -> str:
        from slides import tile_access

        return f"{tile_access.cookie_path(tile_access.partition_of(log_in), self.slide_id)}{self.store_name}/"

    def cookie(self, log_in: str) -> str:
        """A fresh token of the usual minute, beside the cookies that a browser sends along."""
        from slides import tile_access

        now = int(time.time())
        claims = tile_access.Claims("0" * 32, now + tile_access.TOKEN_SECONDS, now + 3600, 0.5, 0.5)
        token = tile_access.sign(
            claims, partition=tile_access.partition_of(log_in), slide_id=self.slide_id, store=self.store_name
        )
        edge = tile_access.edge_pass(
            claims.expires_at, partition=tile_access.partition_of(log_in), slide_id=self.slide_id, store=self.store_name
        )
        passes = f"{tile_access.COOKIE_NAME}={token}; {tile_access.EDGE_COOKIE_NAME}={edge}"
        return f"csrftoken={'c' * 32}; sessionid={'s' * 32}; {passes}"


class Bench(Opened):
    """A prepared slide under a home of its own, and who may see it."""

    def __init__(self, folder: Path, slide: Path | None) -> None:
        self.store_name = STORE
        self.folder = folder
        folder.chmod(0o755)  # nginx started by root reads as nobody
        self.cache = Path("/dev/shm") / folder.name if Path("/dev/shm").is_dir() else folder
        self.cache.mkdir(exist_ok=True)
        self.env = os.environ | {
            "METADET_HOME": str(folder),
            "METADET_SECRET_KEY": SECRET,
            "DJANGO_SETTINGS_MODULE": "metadet_site.settings",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(folder)]),
            "PYTHONWARNINGS": "ignore",
            "METADET_EDGE_KEY": SECRET,
        }
        os.environ.update(self.env)
        sys.path.insert(0, str(REPOSITORY))
        import django

        django.setup()
        logging.getLogger("pyvips").setLevel(logging.WARNING)
        from slides.wsi import sandbox
        from slides.wsi.tile_store import TileStore

        self.slide_id = str(uuid.uuid4())
        self.slide = slide.resolve() if slide else folder / "made.tif"
        if slide is None:
            print("making a slide ...", file=sys.stderr)
            make_slide(self.slide)
        output, apart = folder / "slides" / self.slide_id / STORE, folder / "apart"
        output.mkdir(parents=True)
        apart.mkdir()
        sandbox.prepare(self.slide, output, associated_dir=apart)
        self.store = TileStore.load(output)

    def names(self, most: int) -> list[str]:
        """Tiles of full resolution, which all peers have alike, in an order without neighbours."""
        level = self.store.levels[0]
        names = [f"0/{col}_{row}.jpg" for row in range(level.rows) for col in range(level.cols)]
        random.Random(2).shuffle(names)
        return names[:most]

    def peers(self, names: list[str]) -> list[Peer]:
        plain = ["/" + name for name in names]
        (self.folder / "bare_tiles.py").write_text(BARE.format(store=str(self.store.folder)))
        peers = [
            Peer(US, granian("metadet_site.wsgi:application"), [self.prefix("a") + n for n in names], authorised=True),
            Peer("bare WSGI, no check", granian("bare_tiles:application"), plain),
        ]
        for module, style, name in (
            ("large_image_as_is", ", style={'icc': False}", "large_image, icc off"),
            ("large_image_icc", "", "large_image, as it comes"),
        ):
            (self.folder / f"{module}.py").write_text(LARGE_IMAGE.format(style=style, slide=str(self.slide)))
            peers.append(Peer(name, granian(f"{module}:application"), plain))
        if nginx := shutil.which("nginx"):
            for name in names:
                file = self.folder / "www" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                col, row = name.split("/")[1][:-4].split("_")
                file.write_bytes(self.store.tile(0, int(col), int(row)).data)
            peers.append(Peer("nginx, static files", lambda port: self._nginx(nginx, port), plain))
            peers.append(
                replace(peers[0], name="metadet behind nginx", before=lambda port, to: self._edge(nginx, port, to))
            )
        else:
            print("nginx is not installed: left out.", file=sys.stderr)
        return peers

    def _nginx(self, program: str, port: int) -> list[str]:
        (self.folder / "nginx.conf").write_text(NGINX.format(folder=self.folder, port=port))
        return [program, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]

    def _edge(self, program: str, port: int, behind: int) -> list[str]:
        """The files of deploy/nginx, with a cache in memory that is empty at the start."""
        cache = self.cache / "metadet-tiles"
        shutil.rmtree(cache, ignore_errors=True)
        texts = {
            name: (REPOSITORY / "deploy/nginx" / file).read_text().replace("/var/cache/nginx", str(self.cache))
            for name, file in (("http", "tiles-at-the-edge-http.conf"), ("server", "tiles-at-the-edge.conf"))
        }
        user = "user root;" if os.geteuid() == 0 else ""
        written = EDGE.format(folder=self.folder, port=port, behind=behind, key=SECRET, user=user, **texts)
        (self.folder / "edge.conf").write_text(written)
        return [program, "-c", str(self.folder / "edge.conf"), "-p", str(self.folder)]


def measure(bench: Bench, peer: Peer, connections: list[int], number: int) -> Iterator[Row]:
    port, first = free_port(), free_port()
    by_wrk = shutil.which("wrk") is not None
    with ExitStack() as servers:
        pids = [servers.enter_context(serving(peer.command(first), first, bench.env))]
        if peer.before is None:
            port = first
        else:
            pids.append(servers.enter_context(serving(peer.before(port, first), port, bench.env)))
        for run, conns, once in [
            (f"once, {connections[0]}", connections[0], True),
            *((f"warm, {conns}", conns, False) for conns in connections),
        ]:
            cookie = bench.cookie("a") if peer.authorised else "none=0"
            before = sum(map(cpu_seconds, pids))
            if by_wrk:
                asked = ask_by_wrk(bench.folder, port, peer.paths, cookie, conns, len(peer.paths) if once else None)
            else:
                asked = ask_by_threads(port, peer.paths, cookie, conns, len(peer.paths) if once else None)
            used = sum(map(cpu_seconds, pids)) - before
            yield Row(
                peer.name, run, number, asked.requests, used / asked.requests * 1000, asked.requests / asked.seconds,
                asked.p50_ms, asked.p99_ms, asked.bytes / asked.requests / 1024,
            )  # fmt: skip


def compare(bench: Bench, options: argparse.Namespace) -> list[Row]:
    names = bench.names(options.tiles)
    peers = bench.peers(names)
    rows: list[Row] = []
    for number in range(options.rounds):
        for peer in peers:
            print(f"round {number + 1}: {peer.name}", file=sys.stderr)
            rows += measure(bench, peer, options.connections, number)
    return rows


def show(rows: list[Row]) -> None:
    client = "wrk" if shutil.which("wrk") else "threads of this process (wrk is not installed)"
    rounds = 1 + max(row.round for row in rows)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, client: {client}; medians of {rounds} rounds")
    print(f"{'peer':<26}{'run':<10}{'CPU s/1000':>11}{'least':>8}{'most':>8}{'x metadet':>11}", end="")
    print(f"{'tiles/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'KB':>6}")
    runs = list(dict.fromkeys(row.run for row in rows))
    ours = {(row.run, row.round): row.cpu_s_per_1000 for row in rows if row.peer == US}
    for run in runs:
        for peer in dict.fromkeys(row.peer for row in rows):
            same = [row for row in rows if (row.peer, row.run) == (peer, run)]
            cpu = [row.cpu_s_per_1000 for row in same]
            ratio = statistics.median(row.cpu_s_per_1000 / ours[run, row.round] for row in same)
            middle = [
                statistics.median(getattr(row, name) for row in same)
                for name in ("tiles_per_s", "p50_ms", "p99_ms", "kb_per_tile")
            ]
            print(f"{peer:<26}{run:<10}{statistics.median(cpu):>11.4f}{min(cpu):>8.4f}{max(cpu):>8.4f}", end="")
            print(f"{ratio:>11.2f}{middle[0]:>9.0f}{middle[1]:>8.2f}{middle[2]:>8.2f}{middle[3]:>6.1f}")


# -- viewers who pan ------------------------------------------------------------------------------------

LINKS_OF_A_BROWSER = 6
SCREEN_PX = (1600, 1000)
PAN_EVERY_S = 2.0
OPENING_S = 10.0  # within which all have opened the slide; that many at one moment is no department's morning


class Viewer:
    """One person: a stage of 1600 x 1000 at full resolution, moved by a quarter of its side every two seconds."""

    def __init__(self, bench: Opened, number: int, port: int, seconds: list[float], errors: list[str]) -> None:
        self._bench, self._port, self._seconds, self._errors = bench, port, seconds, errors
        self._log_in = f"viewer {number}"
        self._random = random.Random(number)
        self._level = bench.store.levels[0]
        self._waiting: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self._cookie = b""

    async def look(self, until: float) -> None:
        links = [asyncio.create_task(self._link()) for _ in range(LINKS_OF_A_BROWSER)]
        x = self._random.random() * max(1, self._level.width - SCREEN_PX[0])
        y = self._random.random() * max(1, self._level.height - SCREEN_PX[1])
        await asyncio.sleep(self._random.random() * OPENING_S)
        seen: set[tuple[int, int]] = set()
        while time.monotonic() < until:
            self._cookie = self._bench.cookie(self._log_in).encode()
            in_view = self._tiles_at(x, y)
            for col, row in sorted(in_view - seen):
                self._waiting.put_nowait((f"0/{col}_{row}.jpg", time.monotonic()))
            seen = in_view  # what left the view is asked for again: the browser's own cache is not counted on
            dx, dy = self._random.choice([(1, 0), (-1, 0), (0, 1), (0, -1)])
            x = min(max(0, x + dx * SCREEN_PX[0] / 4), max(0, self._level.width - SCREEN_PX[0]))
            y = min(max(0, y + dy * SCREEN_PX[1] / 4), max(0, self._level.height - SCREEN_PX[1]))
            await asyncio.sleep(PAN_EVERY_S)
        await self._waiting.join()
        for link in links:
            link.cancel()

    def _tiles_at(self, x: float, y: float) -> set[tuple[int, int]]:
        level = self._level
        cols = range(int(x) // level.tile_width, min(level.cols, int(x + SCREEN_PX[0]) // level.tile_width + 1))
        rows = range(int(y) // level.tile_height, min(level.rows, int(y + SCREEN_PX[1]) // level.tile_height + 1))
        return {(col, row) for col in cols for row in rows}

    async def _link(self) -> None:
        prefix = self._bench.prefix(self._log_in)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while True:
            name, wanted = await self._waiting.get()
            try:
                head = f"GET {prefix}{name} HTTP/1.1\r\nHost: localhost\r\nCookie: ".encode()
                writer.write(head + self._cookie + b"\r\n\r\n")
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(answer.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
                self._seconds.append(time.monotonic() - wanted)
                if not answer.startswith(b"http/1.1 200"):
                    self._errors.append(answer.split(b"\r\n", 1)[0].decode())
            finally:
                self._waiting.task_done()


class Stack(Opened):
    """The stack of `make run` at work: it takes an upload without end and detects on its largest slide."""

    PIECE = 8 << 20
    LENGTH = 64 << 30

    def __init__(self, home: Path, port: int) -> None:
        os.environ |= {"METADET_HOME": str(home.resolve()), "DJANGO_SETTINGS_MODULE": "metadet_site.settings"}
        import django

        django.setup()
        from slides.enums import SlideState
        from slides.models import Slide

        self.port = port
        self.slide = Slide.objects.filter(state=SlideState.READY).order_by("-width", "-created_at")[0]
        self.slide_id, self.store_name = str(self.slide.pk), self.slide.store
        from slides.wsi.tile_store import TileStore

        self.store = TileStore.load(self.slide.store_folder)
        self.sent = 0
        self._over = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        from analysis.enums import Profile
        from analysis.runs import request_run

        profiles = (Profile.STANDARD, Profile.FAST)
        job = next((job for p in profiles if (job := request_run(slide=self.slide, profile=p, actor=None))), None)
        if job is None:
            raise SystemExit("This slide has its runs already: import another one first.")
        self.job = job
        while self.job.state == "queued":
            time.sleep(0.1)
            self.job.refresh_from_db()
        upload = threading.Thread(target=self._upload)
        upload.start()
        try:
            yield
        finally:
            self._over.set()
            upload.join()

    def _upload(self) -> None:
        from importlib import import_module

        from django.conf import settings
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY

        from accounts.enums import Role
        from accounts.models import User

        operator = next(user for user in User.objects.filter(is_active=True) if user.has_role(Role.OPERATOR))
        session = import_module(settings.SESSION_ENGINE).SessionStore()
        session[SESSION_KEY] = str(operator.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[-1]
        session[HASH_SESSION_KEY] = operator.get_session_auth_hash()
        session.create()
        csrf = "k" * 32
        head = {
            "Cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}; {settings.CSRF_COOKIE_NAME}={csrf}",
            "X-CSRFToken": csrf,
            "Tus-Resumable": "1.0.0",
        }
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

        def ask(method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body=body, headers=head | named)
            answer = link.getresponse()
            said = answer.read()
            if answer.status >= 300:
                raise SystemExit(f"upload: {answer.status} {said[:300]!r}")
            return answer

        facts = {"filename": "benchmark.svs", "case": "BENCHMARK"}
        metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in facts.items())
        path = ask("POST", "/api/uploads/", Upload_Length=str(self.LENGTH), Upload_Metadata=metadata).headers[
            "Location"
        ]
        path = path[path.index("/api/") :]
        piece = os.urandom(self.PIECE)
        while not self._over.is_set():
            ask("PATCH", path, piece, Upload_Offset=str(self.sent), Content_Type="application/offset+octet-stream")
            self.sent += len(piece)
        ask("DELETE", path)
        session.delete()

    def said(self) -> str:
        self.job.refresh_from_db()
        return f"an upload of {self.sent / 2**20:.0f} MiB and a detection that is {self.job.get_state_display()}"


def pan_in_stack(options: argparse.Namespace) -> None:
    stack = Stack(Path(options.stack[0]), int(options.stack[1]))
    seconds: list[float] = []
    errors: list[str] = []
    with stack.at_work():
        wall = asyncio.run(everybody(stack, stack.port, options, seconds, errors))
        said = stack.said()
    print(f"{options.viewers} viewers of {stack.slide.width} x {stack.slide.height}, {wall:.0f} s, beside: {said}")
    tell(seconds, errors, wall)


async def everybody(
    opened: Opened, port: int, options: argparse.Namespace, seconds: list[float], errors: list[str]
) -> float:
    """All viewers; how long they took in seconds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    begun = time.monotonic()
    viewers = [Viewer(opened, number, port, seconds, errors) for number in range(options.viewers)]
    await asyncio.gather(*(viewer.look(begun + options.seconds) for viewer in viewers))
    return time.monotonic() - begun


def tell(seconds: list[float], errors: list[str], wall: float) -> None:
    cuts = statistics.quantiles(seconds, n=1000)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"{len(seconds)} tiles, {len(seconds) / wall:.0f} a second, {len(errors)} errors {sorted(set(errors))}")
    print(
        f"ms from wanted to there: p50 {cuts[499] * 1000:.1f}, p95 {cuts[949] * 1000:.1f}, p99 {cuts[989] * 1000:.1f}, "
        f"longest {max(seconds) * 1000:.0f}"
    )


def pan(bench: Bench, options: argparse.Namespace) -> None:
    seconds: list[float] = []
    errors: list[str] = []
    port = free_port()
    with serving(granian("metadet_site.wsgi:application")(port), port, bench.env, core=None) as pid:
        beside = subprocess.Popen(shlex.split(options.beside), start_new_session=True) if options.beside else None
        before = cpu_seconds(pid)
        try:
            wall = asyncio.run(everybody(bench, port, options, seconds, errors))
            still = beside is not None and beside.poll() is None
        finally:
            if beside is not None and beside.poll() is None:
                os.killpg(beside.pid, signal.SIGKILL)
        used = cpu_seconds(pid) - before
    print(f"{options.viewers} viewers, {wall:.0f} s", end="")
    print(f", beside: {options.beside} ({'all the time' if still else 'ended before'})" if options.beside else "")
    tell(seconds, errors, wall)
    print(f"server CPU s/1000 tiles {used / len(seconds) * 1000:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--tiles", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--viewers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--beside", default="", help="a command that runs while the viewers pan, such as a detection")
    parser.add_argument("--stack", nargs=2, metavar=("HOME", "PORT"), help="with --viewers: the stack that runs there")
    options = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))
    if options.stack:
        return pan_in_stack(options)
    folder = Path(tempfile.mkdtemp(prefix="metadet-tiles-"))
    bench = None
    try:
        bench = Bench(folder, options.slide)
        if options.viewers:
            return pan(bench, options)
        rows = compare(bench, options)
    finally:
        if bench is not None:
            shutil.rmtree(bench.cache, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows)


if __name__ == "__main__":
    main()
