"""docker-compose.yml: the parts are there, secrets stay secrets, and compose itself accepts it where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.enums import TASK_OF

REPOSITORY = Path(__file__).resolve().parents[2]
WORKERS = ("worker-ingest", "worker-check", "worker-cpu", "worker-gpu", "worker-evaluate")
PARTS = {"web", *WORKERS, "scheduler", "postgres", "valkey", "nginx"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return loaded


def test_every_part_is_there(compose: dict[str, Any]) -> None:
    assert PARTS <= set(compose["services"])
    assert compose["services"]["worker-gpu"]["profiles"] == ["gpu"]


def test_every_queue_has_a_worker(compose: dict[str, Any]) -> None:
    commands = [compose["services"][name]["command"] for name in WORKERS]
    served = {command[command.index("-Q") + 1] for command in commands}
    assert served == {queue for _, queue in TASK_OF.values()}


def test_only_nginx_is_reachable_from_outside_and_only_from_this_machine(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"nginx": ["${METADET_LISTEN:-127.0.0.1:8080}:80"]}


def test_only_the_migration_knows_the_owner_of_the_tables(compose: dict[str, Any]) -> None:
    knowing = [
        name for name, service in compose["services"].items() if "database_owner_url" in service.get("secrets", [])
    ]
    assert knowing == ["migrate"]


def test_what_decodes_slides_has_no_rights_it_does_not_need(compose: dict[str, Any]) -> None:
    for name in ("web", *WORKERS, "scheduler"):
        service = compose["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "no-new-privileges:true" in service["security_opt"]


def test_workers_stop_by_the_signal_that_hands_their_slide_back(compose: dict[str, Any]) -> None:
    for name in WORKERS:
        assert compose["services"][name]["stop_signal"] == "SIGQUIT"


def test_no_password_stands_in_the_file(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|DATABASE", name):
                assert name.endswith("_FILE")
                assert str(value).startswith("/run/secrets/")


def test_every_file_that_is_mounted_or_built_exists(compose: dict[str, Any]) -> None:
    mounted = [
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert "./metadet_site/local_stack/roles.sql" in mounted
    for path in [*mounted, compose["x-metadet"]["build"]["dockerfile"]]:
        assert (REPOSITORY / path).is_file(), path


def test_secrets_are_made_once_and_fit_into_addresses(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "deploy" / "make-secrets.sh", tmp_path)
    make = ["sh", str(tmp_path / "make-secrets.sh")]
    subprocess.run(make, check=True, capture_output=True)
    first = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(first) == set(compose_secrets())
    assert f"metadet_app:{first['app_password']}@postgres" in first["database_url"]
    assert re.fullmatch(r"[\w-]{48}", first["app_password"])
    subprocess.run(make, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == first


def compose_secrets() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["secrets"]
    return loaded


def test_the_image_asks_for_the_range_of_torch_in_pyproject() -> None:
    expression = re.search(r"sed -n '(.*?)' pyproject\.toml", (REPOSITORY / "deploy" / "Dockerfile").read_text())
    assert expression is not None
    found = subprocess.run(
        ["sed", "-n", expression[1], "pyproject.toml"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.split()
    assert len(found) == 1
    assert found[0].startswith("torch>=")


@pytest.mark.skipif(
    shutil.which("docker-compose") is None
    and subprocess.run(["sh", "-c", "docker compose version"], capture_output=True).returncode != 0,
    reason="neither docker-compose nor docker's compose plugin is installed",
)
def test_compose_accepts_it() -> None:
    command = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    checked = subprocess.run([*command, "config", "--quiet"], cwd=REPOSITORY, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
