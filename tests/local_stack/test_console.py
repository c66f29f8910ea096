"""What is shown, what is logged, and what a closed terminal does."""

import io
import os
import stat
from pathlib import Path

from metadet_site.local_stack.console import Console


def test_a_line_is_shown_under_its_childs_name_and_logged(tmp_path: Path) -> None:
    shown = io.StringIO()
    Console(log_file=tmp_path / "up.log", stream=shown).child_line("web", "ready\n")
    assert shown.getvalue() == "      web | ready\n"
    assert "web | ready" in (tmp_path / "up.log").read_text()


def test_control_characters_of_a_child_do_not_reach_the_terminal() -> None:
    shown = io.StringIO()
    Console(stream=shown).child_line("ingest", "\x1b[2J\x1b]0;title\x07slide\x08\x00.svs")
    assert "\x1b" not in shown.getvalue()
    assert "\x07" not in shown.getvalue()
    assert "slide.svs" in shown.getvalue()


def test_a_secret_is_shown_and_not_logged(tmp_path: Path) -> None:
    shown = io.StringIO()
    console = Console(log_file=tmp_path / "up.log", stream=shown)
    console.say("reader http://127.0.0.1/one-time/abc", secret=True)
    console.say("after")
    assert "one-time/abc" in shown.getvalue()
    log = (tmp_path / "up.log").read_text()
    assert "after" in log
    assert "abc" not in log
    assert stat.S_IMODE((tmp_path / "up.log").stat().st_mode) == 0o600


def test_a_closed_pipe_is_no_reason_to_stop(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        console = Console(log_file=tmp_path / "up.log", stream=pipe)
        console.say("nobody reads this")
        console.say("nor this")
    assert "nor this" in (tmp_path / "up.log").read_text()


def test_the_log_of_the_last_start_is_kept(tmp_path: Path) -> None:
    Console(log_file=tmp_path / "up.log", stream=io.StringIO()).say("first start")
    Console(log_file=tmp_path / "up.log", stream=io.StringIO()).say("second start")
    assert "first start" in (tmp_path / "up.previous.log").read_text()
    assert "first start" not in (tmp_path / "up.log").read_text()
