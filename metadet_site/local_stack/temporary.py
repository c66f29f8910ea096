"""A PostgreSQL for tests and benchmarks: the embedded one, not durable, gone afterwards."""

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metadet_site.local_stack import processes
from metadet_site.local_stack.errors import NotHealthy
from metadet_site.local_stack.home import make_socket_folder
from metadet_site.local_stack.postgres import NOT_DURABLE, SUPERUSER, Cluster, find_binaries


@contextmanager
def temporary_cluster(*, patience_s: float = 60.0) -> Iterator[Cluster]:
    """A running cluster whose metadet_owner may make databases, each with the three roles' default rights in it."""
    with tempfile.TemporaryDirectory(prefix="metadet-test-", ignore_cleanup_errors=True) as folder:
        socket_folder = make_socket_folder()
        try:
            cluster = Cluster(
                folder=Path(folder),
                socket_folder=socket_folder,
                passwords_file=Path(folder) / "passwords.json",
                binaries=find_binaries(),
                settings=NOT_DURABLE | {"shared_buffers": "32MB"},
            )
            cluster.prepare()
            with _running(cluster, patience_s=patience_s):
                cluster.set_up_roles()
                _allow_tests(cluster)
                yield cluster
        finally:
            shutil.rmtree(socket_folder, ignore_errors=True)


@contextmanager
def _running(cluster: Cluster, *, patience_s: float) -> Iterator[None]:
    log = cluster.folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            cluster.command(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=processes.before_exec(death_signal=signal.SIGQUIT),
            **cluster.unprivileged.popen,
        )
    try:
        deadline = time.monotonic() + patience_s
        while not cluster.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotHealthy(f"PostgreSQL did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _allow_tests(cluster: Cluster) -> None:
    """What the owner may do in tests only: make databases, act as the other roles, try to go round the triggers."""
    cluster.set_up_roles(database="template1")  # databases made from it have the same rights
    with cluster.connect(SUPERUSER, database="postgres") as connection:
        connection.execute("ALTER ROLE metadet_owner CREATEDB")
        connection.execute("GRANT metadet_app, metadet_auditor TO metadet_owner")
        if cluster.binaries.major >= 15:
            connection.execute("GRANT SET ON PARAMETER session_replication_role TO metadet_owner")
