"""How long `manage.py up` takes from nothing and the second time, and how long it takes to stop.

    .venv/bin/python benchmarks/startup.py [--demo]

Prints one line each: measured, limit, ratio. The environment and the front end must be there (`make setup`); with --demo
the demo is made and read too. Wall time depends on what else the machine does: the processor time is printed beside it.
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


def start_and_stop(home: Path, *, demo: bool) -> tuple[float, float, float]:
    """Seconds to the address, seconds to stop, processor seconds of all of it."""
    environment = {**os.environ, "METADET_HOME": str(home), "METADET_DEMO": "yes" if demo else "no"}
    cpu_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    stack = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "manage.py"), "up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert stack.stdout is not None
    said = []
    for line in stack.stdout:
        said.append(line)
        if "Everything is up" in line:
            break
    up = time.monotonic() - began
    stack.send_signal(signal.SIGINT)
    rest = stack.stdout.read()
    code = stack.wait()
    stopped = time.monotonic() - began - up
    if code:
        sys.exit("".join(said) + rest)
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    return up, stopped, cpu.ru_utime + cpu.ru_stime - cpu_before.ru_utime - cpu_before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="metadet startup ") as folder:
        for name, limit in (("first start", FIRST_LIMIT_S), ("second start", SECOND_LIMIT_S)):
            up, stopped, cpu = start_and_stop(Path(folder) / "home", demo=options.demo)
            print(f"{name:<13} {up:6.1f} s of {limit:g} s ({up / limit:.2f}), {cpu:.1f} s of processor time")
            print(f"{'stop':<13} {stopped:6.1f} s of {STOP_LIMIT_S:g} s ({stopped / STOP_LIMIT_S:.2f})")


if __name__ == "__main__":
    main()
