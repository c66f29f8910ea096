"""METADET_HOME: secrets made once, one `up` at a time, addresses for a second terminal."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from metadet_site.local_stack.errors import AlreadyRunning, LocalStackError
from metadet_site.local_stack.home import (
    Home,
    make_socket_folder,
    open_home,
    publish,
    published,
    take_lock,
    withdraw,
    write_secret_once,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("METADET_HOME", str(tmp_path / "a home"))
    return open_home()


def test_the_secret_key_is_made_once_and_for_the_owner_alone(home: Home) -> None:
    first = home.secret_key.read_text()
    assert len(first) >= 50
    assert stat.S_IMODE(home.secret_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.keys.stat().st_mode) == 0o700
    assert open_home().secret_key.read_text() == first


def test_of_two_secrets_written_at_once_the_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret_once(path, "first")
    write_secret_once(path, "second")
    assert path.read_text() == "first"
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]


def test_a_home_that_cannot_be_written_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("METADET_HOME", str(in_the_way / "home"))
    with pytest.raises(LocalStackError, match="METADET_HOME"):
        open_home()


def test_a_second_lock_is_refused_with_the_number_of_the_first(home: Home) -> None:
    held = take_lock(home)
    with pytest.raises(AlreadyRunning, match=rf"already runs .*process {os.getpid()}"):
        take_lock(home)
    os.close(held)
    os.close(take_lock(home))


def test_a_child_of_a_dead_start_keeps_the_lock_until_it_ends(home: Home) -> None:
    lock = take_lock(home)
    os.pwrite(lock, b"999999999\n", 0)  # a number that no process has
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    os.close(lock)
    with pytest.raises(AlreadyRunning, match="earlier start"):
        take_lock(home, patience_s=0)
    child.communicate(b"\n")
    os.close(take_lock(home))


def test_addresses_are_published_for_the_owner_alone_and_withdrawn_with_the_sockets(home: Home) -> None:
    sockets = make_socket_folder()
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    publish(home, {"DATABASE_URL": "postgresql:///x"}, socket_folder=sockets)
    assert published(home.folder) == {"DATABASE_URL": "postgresql:///x"}
    assert stat.S_IMODE(home.running.stat().st_mode) == 0o600
    withdraw(home)
    assert published(home.folder) == {}
    assert not sockets.exists()


def test_damaged_addresses_are_no_addresses(home: Home) -> None:
    home.running.write_text('{"environment": ')
    assert published(home.folder) == {}
