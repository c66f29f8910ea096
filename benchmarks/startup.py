"""How long `manage.py up` takes from nothing and the second time, and how long it takes to stop.

    .venv/bin/python benchmarks/startup.py [--demo]
    .venv/bin/python benchmarks/startup.py --from-clone

Prints one line each: measured, limit, ratio. The environment and the front end must be there (`make setup`); with --demo
the demo is made and read too. --from-clone measures `make run` itself, in a fresh clone of the committed tree, with empty
caches of pip and npm. Wall time depends on what else the machine does: the processor time is printed beside it.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FIRST_LIMIT_S, SECOND_LIMIT_S, STOP_LIMIT_S = 360.0, 15.0, 15.0


def start_and_stop(
    command: list[str], *, folder: Path, environment: dict[str, str], until: str = "Everything is up"
) -> tuple[float, float, float]:
    """Seconds until the words `until` are printed, seconds to stop, processor seconds of all of it."""
    cpu_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    stack = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert stack.stdout is not None
    said = []
    for line in stack.stdout:
        said.append(line)
        if until in line:
            break
    up = time.monotonic() - began
    os.killpg(stack.pid, signal.SIGINT)  # as Ctrl-C in a terminal does: `make` alone would wait for its child
    rest = stack.stdout.read()
    stack.wait()
    stopped = time.monotonic() - began - up
    if "Stopped." not in rest:  # the exit status of an interrupted `make` says nothing
        sys.exit("".join(said) + rest)
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    return up, stopped, cpu.ru_utime + cpu.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime


def from_clone(folder: Path) -> None:
    """`make run` in a fresh clone with nothing of ours on the machine: to the page, and once more to the second page."""
    clone = folder / "a clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
    caches = {"PIP_CACHE_DIR": str(folder / "pip"), "npm_config_cache": str(folder / "npm")}
    for name, limit in (("first start", FIRST_LIMIT_S), ("second start", SECOND_LIMIT_S)):
        figures = start_and_stop(["make", "run"], folder=clone, environment=caches, until="metadet is ready")
        say(name, limit, figures)


def say(name: str, limit: float, figures: tuple[float, float, float]) -> None:
    up, stopped, cpu = figures
    print(f"{name:<13} {up:6.1f} s of {limit:g} s ({up / limit:.2f}), {cpu:.1f} s of processor time", flush=True)
    print(f"{'stop':<13} {stopped:6.1f} s of {STOP_LIMIT_S:g} s ({stopped / STOP_LIMIT_S:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--from-clone", action="store_true")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="metadet startup ") as name:
        folder = Path(name)
        if options.from_clone:
            return from_clone(folder)
        environment = {"METADET_HOME": str(folder / "home"), "METADET_DEMO": "yes" if options.demo else "no"}
        command = [sys.executable, str(REPOSITORY / "manage.py"), "up"]
        for name, limit in (("first start", FIRST_LIMIT_S), ("second start", SECOND_LIMIT_S)):
            say(name, limit, start_and_stop(command, folder=REPOSITORY, environment=environment))


if __name__ == "__main__":
    main()
