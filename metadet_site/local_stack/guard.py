"""The process that the person started: it runs the supervisor and makes sure that nothing outlives it.

It does almost nothing, so almost nothing can end it. When the supervisor is gone, for whatever reason, every process below
it has become this one's child (PR_SET_CHILD_SUBREAPER) and is ended. When this one is killed -9, the kernel tells the
supervisor, which stops all in order.
"""

import os
import signal
import subprocess
import sys

from metadet_site.local_stack import processes, sweeper
from metadet_site.local_stack.errors import LocalStackError
from metadet_site.local_stack.home import REPOSITORY, open_home, take_lock, withdraw

# Children of a killed supervisor have got the kernel's signal to stop; so long they may take to do it well.
LAST_WORDS_S = 6.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
USAGE = """usage: manage.py up

Starts the whole of metadet on this machine and runs until Ctrl-C. Set by the environment:
  METADET_HOME       folder of the database, the slides and the keys (default: var)
  METADET_PORT       port of the web server on 127.0.0.1 (default: 8000, or the next free one)
  METADET_DEMO       no: do not load the demo cases at the first start
  DATABASE_URL       use this PostgreSQL; none is started
  CELERY_BROKER_URL  use this Valkey or Redis; none is started
  METADET_PG_BIN, METADET_VALKEY_BIN   binaries to use in place of the ones found
"""


def main(arguments: list[str]) -> int:
    """Runs `up` to its end; answers the exit code for the shell."""
    if arguments:
        print(USAGE)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    if os.environ.get("METADET_DIE_WITH_PARENT"):  # set by `make run`: a killed make takes its stack along
        processes.die_with_parent(by=signal.SIGTERM, parent=os.getppid())
    try:
        home = open_home()
        lock = take_lock(home)
    except LocalStackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    withdraw(home)  # of a start that was killed with all its watch
    mark, watched = sweeper.start(home)
    processes.adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the handlers that pass them on are there
    supervisor = _start_supervisor(lock=lock, mark=mark, watched=watched)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, _frame: processes.send(supervisor.pid, signal.Signals(number)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    code = _wait_for(supervisor.pid)
    processes.end_all_below(os.getpid(), patience_s=LAST_WORDS_S)
    withdraw(home)
    if code < 0:
        print(
            f"The supervisor was killed by {signal.Signals(-code).name}; everything it ran was stopped.",
            file=sys.stderr,
        )
        return 128 - code
    return code


def _start_supervisor(*, lock: int, mark: str, watched: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "metadet_site.local_stack.up", str(lock)],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        pass_fds=[lock, watched],  # `watched` ends with the last of the two: see the sweeper
        env={**os.environ, sweeper.MARK: mark},
        preexec_fn=processes.before_exec(death_signal=signal.SIGTERM),
    )


def _wait_for(pid: int) -> int:
    """The supervisor's exit code; orphans that end meanwhile are collected too."""
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if ended == pid:
            return os.waitstatus_to_exitcode(status)
