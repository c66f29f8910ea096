"""What `manage.py up` starts, in which order, and what it says. Run by the guard as a process of its own."""

import http.client
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from metadet_site import __version__
from metadet_site.env import BadSetting, env_bool, env_int, env_secret
from metadet_site.local_stack import migrated, valkey
from metadet_site.local_stack.console import Console
from metadet_site.local_stack.errors import LocalStackError, PortTaken
from metadet_site.local_stack.home import REPOSITORY, Home, make_socket_folder, open_home, publish, withdraw
from metadet_site.local_stack.postgres import FAST_SHUTDOWN, Cluster, find_binaries
from metadet_site.local_stack.supervisor import Service, StopAsked, Supervisor

ADDRESS = "127.0.0.1"
DEMO_PASSWORDS = "demo-passwords.txt"  # written by review's load_demo
DEFAULT_PORT = 8000
PORTS_TRIED = 20
# Warnings about root and about users without a name, ten lines each: the worker decodes nothing itself (slides/wsi/sandbox).
CELERY_SAYS = ("You're running the worker", "An entry for the specified gid")
# A browser keeps six connections open, and granian lets the rest wait until one of its first 1,024 ends: with 200 open
# slides some viewers would get no tile at all.
WEB_OPTIONS = ("--no-ws", "--backlog", "8192", "--backpressure", "8192")
# Stages rise at the start and fall at the stop.
STORES, WORKERS, WEB = 1, 2, 3


def main(lock: int) -> int:
    """Starts everything, watches, stops everything; answers the exit code."""
    began = time.monotonic()
    try:
        home = open_home()
        console = Console(log_file=home.logs / "up.log")
        supervisor = Supervisor(console=console, working_folder=REPOSITORY, kept_open=[lock])
        supervisor.take_signals()
    except (LocalStackError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    stack = LocalStack(home=home, console=console, supervisor=supervisor)
    code = 0
    try:
        stack.start()
        console.say(f"Everything is up after {time.monotonic() - began:.1f} s. Stop it with Ctrl-C.")
        supervisor.watch()
    except StopAsked as asked:
        console.say(f"Stopping ({asked}).")
    except (LocalStackError, BadSetting) as error:
        console.say(f"metadet cannot start: {error}" if not stack.started else f"metadet cannot go on: {error}")
        code = 1
    finally:
        clean = supervisor.stop()
        withdraw(home)
        console.say("Stopped." if clean else "Stopped; what did not end by itself was killed.")
    return code


class LocalStack:
    """The parts of one installation on this machine."""

    def __init__(self, *, home: Home, console: Console, supervisor: Supervisor) -> None:
        self.home = home
        self.console = console
        self.supervisor = supervisor
        self.started = False
        self.cluster: Cluster | None = None  # None when DATABASE_URL names another database

    def start(self) -> None:
        self.console.say(f"metadet {__version__}, research use only. State in {self.home.folder}.")
        port = choose_port(self.console)
        self.address = f"http://{ADDRESS}:{port}"
        socket_folder = make_socket_folder()
        publish(self.home, {}, socket_folder=socket_folder)  # so that the folder is removed whatever happens next
        self.environment = self._common_environment()
        self._start_stores(socket_folder)
        self._migrate()
        self.supervisor.start(*self._workers(), self._web(port))
        self.started = True
        self._say_isolation()
        demo_wanted = env_bool("METADET_DEMO", True) and not self.home.demo_loaded.exists()
        demo_made = demo_wanted and self._make_demo()
        self._say_links()
        if demo_made:
            self._wait_for_demo()

    def _common_environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "METADET_HOME": str(self.home.folder),
            "PYTHONUNBUFFERED": "1",
            # OpenMP's threads otherwise spin at barriers: with a busy neighbour two threads are slower than one.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        if env_secret("METADET_SECRET_KEY") is None:
            environment["METADET_SECRET_KEY_FILE"] = str(self.home.secret_key)
        environment.pop("METADET_DATABASE_OWNER_URL", None)
        environment.pop("METADET_DIE_WITH_PARENT", None)
        return environment

    # -- the database and the queue ----------------------------------------------------------------

    def _start_stores(self, socket_folder: Path) -> None:
        services = []
        cluster = None
        self.owner_url = env_secret("METADET_DATABASE_OWNER_URL")
        if env_secret("DATABASE_URL") is None:
            cluster = Cluster(
                folder=self.home.postgres,
                socket_folder=socket_folder,
                passwords_file=self.home.database_passwords,
                binaries=find_binaries(),
            )
            if not cluster.data.exists():
                self.console.say(
                    f"Making the database (PostgreSQL {cluster.binaries.major} of {cluster.binaries.source}) ..."
                )
            cluster.prepare()
            services.append(self._postgres(cluster))
            self.environment["DATABASE_URL"] = cluster.url("metadet_app")
            self.owner_url = cluster.url("metadet_owner")
        else:
            self.console.say("DATABASE_URL is set: that PostgreSQL is used, none is started.")
        if env_secret("CELERY_BROKER_URL") is None:
            services.append(self._valkey(socket_folder))
            self.environment["CELERY_BROKER_URL"] = valkey.url(socket_folder)
        else:
            self.console.say("CELERY_BROKER_URL is set: that server is used, none is started.")
        # A crashed database repairs itself before it answers; how long that takes depends on its size.
        self.supervisor.start(*services, patience_s=3600)
        if cluster is not None:
            cluster.set_up_roles()
            self.cluster = cluster
        names = ["DATABASE_URL", "CELERY_BROKER_URL"]
        published: dict[str, str] = {name: self.environment[name] for name in names if name in self.environment}
        if self.owner_url is not None:
            published["METADET_DATABASE_OWNER_URL"] = self.owner_url
        publish(self.home, published, socket_folder=socket_folder)

    def _postgres(self, cluster: Cluster) -> Service:
        return Service(
            name="postgres",
            command=cluster.command(),
            environment={name: value for name, value in os.environ.items() if not name.startswith(("METADET_", "PG"))},
            stage=STORES,
            is_ready=lambda _running: cluster.is_ready(),
            stop_signal=FAST_SHUTDOWN,
            grace_s=60,
            popen=cluster.unprivileged.popen,
            before_start=cluster.prepare,
        )

    def _valkey(self, socket_folder: Path) -> Service:
        return Service(
            name="valkey",
            command=valkey.command(valkey.find_valkey(), data=self.home.valkey, socket_folder=socket_folder),
            environment={name: value for name, value in os.environ.items() if not name.startswith("METADET_")},
            stage=STORES,
            is_ready=lambda _running: valkey.is_ready(socket_folder),
        )

    def _migrate(self) -> None:
        if self.cluster is not None and migrated.is_up_to_date(self.cluster):
            return
        self.console.say("Bringing the database up to date ...")
        environment = self.environment | {"METADET_PROCESS": "migrate"}
        if self.owner_url is not None:
            environment["METADET_DATABASE_OWNER_URL"] = self.owner_url
        if self.supervisor.run_once("migrate", manage("migrate", "--no-input", "--verbosity", "1"), environment):
            raise LocalStackError("the database could not be brought up to date; the lines above say why.")
        if self.cluster is not None:
            migrated.remember(self.cluster)

    # -- what runs the product ------------------------------------------------------------------

    def _workers(self) -> list[Service]:
        cores = os.cpu_count() or 1
        return [
            self._worker("ingest", threads=1),
            self._worker("check", threads=1),  # apart from ingest: the next slide need not wait until one is checked
            # one core stays free for the web server and the database
            self._worker("detect", threads=max(1, cores - 1)),
            # hours over a folder of slides, in what time of the processor the others leave
            self._worker("evaluate", threads=max(1, cores - 1), nice=10),
            Service(
                name="scheduler",
                command=manage("run_scheduler"),
                environment=self.environment | {"METADET_PROCESS": "scheduler", "OMP_NUM_THREADS": "1"},
                stage=WORKERS,
                is_ready=lambda running: running.has_said("Scheduler:"),
            ),
        ]

    def _worker(self, queue: str, *, threads: int, nice: int = 0) -> Service:
        return Service(
            name=queue,
            command=[
                *(("nice", "-n", str(nice)) if nice else ()),
                *(sys.executable, *(part for start in CELERY_SAYS for part in ("-W", f"ignore:{start}"))),
                *("-m", "celery", "--quiet"),
                *("-A", "metadet_site.celery", "worker"),
                *("-Q", queue, "-n", f"{queue}@{platform.node() or 'localhost'}"),
                *("--pool", "prefork", "--concurrency", "1", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle"),
            ],
            environment=self.environment
            | {"METADET_PROCESS": f"worker-{queue}", "OMP_NUM_THREADS": str(threads), "NO_COLOR": "1"},
            stage=WORKERS,
            is_ready=lambda running: running.has_said(" ready."),
            # SIGTERM would wait for the running slide, minutes; SIGQUIT hands it back at once.
            stop_signal=signal.SIGQUIT,
        )

    def _web(self, port: int) -> Service:
        return Service(
            name="web",
            command=[
                *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", ADDRESS, "--port", str(port)),
                *("--workers", "1", "--blocking-threads", str(web_threads()), "--respawn-failed-workers", *WEB_OPTIONS),
                *("--log-level", "warning", "metadet_site.wsgi:application"),
            ],
            environment=self.environment | {"METADET_PROCESS": "web", "OMP_NUM_THREADS": "1"},
            stage=WEB,
            is_ready=lambda _running: answers(port),
        )

    # -- what the person is told ------------------------------------------------------------------

    def _say_isolation(self) -> None:
        """Asked in a child: the supervisor loads nothing that decodes slides."""
        asked = "from slides.wsi.sandbox import isolation_report; print(*isolation_report(), sep='\\n')"
        code, lines = self.supervisor.lines_of([sys.executable, "-c", asked], self.environment)
        missing = [line for line in lines if line.strip()]
        if code:
            self.console.say(
                "How well slide files are decoded apart could not be found out:\n" + "\n".join(missing[-3:])
            )
        elif missing:
            self.console.say("Slide files are decoded in a child process of their own. On this machine:")
            for line in missing:
                self.console.say(f"  - {line}")

    def _make_demo(self) -> bool:
        """People, cases and imports: seconds. What the workers then do with them is waited for after the links are shown."""
        self.console.say("First start: making the demo ...")
        if self.supervisor.run_once("demo", manage("load_demo"), self.environment | {"METADET_PROCESS": "demo"}):
            self.console.say("The demo could not be made (see above); the next start tries again.")
            return False
        return True

    def _wait_for_demo(self) -> None:
        self.console.say("The demo slides are being prepared and read; you can log in meanwhile.")
        waiting = manage("load_demo", "--wait", "--timeout", "1800")
        if self.supervisor.run_once("demo", waiting, self.environment | {"METADET_PROCESS": "demo"}) == 0:
            self.home.demo_loaded.touch()
        else:
            self.console.say("The demo is not complete (see above); the next start tries again.")

    def _say_links(self) -> None:
        self.console.say("")
        self.console.say(f"metadet is ready: {self.address}")
        code, lines = self.supervisor.lines_of(manage("login_links", "--address", self.address), self.environment)
        links = [line.split("\t", 1) for line in lines if "\t" in line]
        if code or not links:
            self.console.say(
                "No log-in links could be made:\n" + "\n".join(lines[-5:]) if lines else "There are no users yet."
            )
        else:
            self.console.say("Log in by one of these links; each works once, for 24 hours:")
            for role, link in links:
                self.console.say(f"  {role:<15} {link}", secret=True)
            passwords = self.home.folder / DEMO_PASSWORDS
            if passwords.exists():
                self.console.say(f"Signing asks for a password; those of the demo people are in {passwords}.")
        self.console.say("")


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(REPOSITORY / "manage.py"), *arguments]


def choose_port(console: Console, environment: Mapping[str, str] = os.environ) -> int:
    """METADET_PORT, which must be free; else 8000 or the next free one."""
    if environment.get("METADET_PORT"):
        port = env_int("METADET_PORT", DEFAULT_PORT, minimum=1)
        if not is_free(port):
            raise PortTaken(f"port {port} (METADET_PORT) is used by another program; set METADET_PORT to a free one.")
        return port
    for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        if is_free(port):
            if port != DEFAULT_PORT:
                console.say(f"Port {DEFAULT_PORT} is used by another program; this one listens on {port}.")
            return port
    raise PortTaken(f"the ports {DEFAULT_PORT} to {DEFAULT_PORT + PORTS_TRIED - 1} are all used; set METADET_PORT.")


def web_threads() -> int:
    """Requests wait for the database more than they compute; beyond this granian warns."""
    return min(8, 2 * (os.cpu_count() or 1))


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether the web server and its database answer."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=3)
    try:
        connection.request("GET", "/health/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(lock=int(sys.argv[1])))
