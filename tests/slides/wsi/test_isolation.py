"""Code that runs as the decoding child tries to get out. Each attempt must fail, with namespaces and without them.

The probe goes through the very steps of the child (`child.close_off`), then makes each attempt; each has its own test.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slides.wsi import sandbox
from slides.wsi.errors import RefusalCode, SlideRefused

ROOT = Path(__file__).resolve().parents[3]
SECRET = "the-secret-key-of-this-installation"

# What the attempts may use: slide, output (as the child sees them), and facts of the world outside.
ATTEMPTS = {
    "connect to the database's socket": "socket.socket(socket.AF_UNIX).connect(unix)",
    "connect to an abstract socket": "socket.socket(socket.AF_UNIX).connect(chr(0) + abstract)",
    "connect by TCP": "socket.create_connection(('127.0.0.1', port), 1)",
    "send by UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
    "ask for a name": "socket.getaddrinfo('example.org', 80)",
    "find the secret key in the environment": "must(key in str(dict(os.environ)))",
    "find the secret key of its own start": "must(key.encode() in open('/proc/self/environ', 'rb').read())",
    "read the environment of the parent": "open(f'/proc/{parent}/environ', 'rb').read()",
    "read the environment of process 1": "open('/proc/1/environ', 'rb').read()",
    "read the memory of the parent": "open(f'/proc/{parent}/mem', 'rb')",
    "see other processes": "os.listdir(f'/proc/{parent}')",
    "use a file that the parent has open": "must(any(is_open(number) for number in range(3, 256)))",
    "read another slide": "open(others).read()",
    "list the folder of another slide": "os.listdir(os.path.dirname(others))",
    "list the accounts": "os.listdir('/home') + os.listdir('/root')",
    "read the account file": "open('/etc/passwd').read()",
    "read the settings": "open(code.parent / 'pyproject.toml').read()",
    "write to the source": "open(slide, 'r+b')",
    "empty the source": "os.truncate(slide, 0)",
    "remove the source": "os.remove(slide)",
    "write into the code": "open(isolation.__file__, 'r+b')",
    "write outside of its folder": "open(others + '.evil', 'w')",
    "write into a shared folder": "open('/tmp/evil', 'w')",
    "link to the source": "os.link(slide, output + '/slide')",
    "read over a symbolic link": "follow(others)",
    "write a large file": "large_file()",
    "start a process": "os.fork()",
    "run a program": "os.execv(sys.executable, [sys.executable, '-c', ''])",
    "start a shell": "os.posix_spawn('/bin/sh', ['sh', '-c', 'true'], {})",
    "start threads without end": "threads()",
    "open files without end": "[os.open(slide, os.O_RDONLY) for _ in range(2000)]",
    "take all memory": "mmap.mmap(-1, 2 << 30)",
    "trace the parent": "called('ptrace', 16, parent, 0, 0)",
    "signal the parent": "os.kill(parent, 0)",
    "signal a thread of the parent": "numbered(234, parent, parent, 0)",
    "mount": "called('mount', b'x', b'/', b'tmpfs', 0, None)",
    "change the root folder": "os.chroot(output)",
    "leave by new namespaces": "called('unshare', 0x10000000)",
    "take root": "(os.setuid(0), open('/etc/shadow').read())",
    "make a device": "os.mknod(output + '/device', 0o60600, os.makedev(8, 0))",
    "use the keyring": "numbered(250, 0, -3, 0)",
    "load a program into the kernel": "numbered(321, 0, 0, 0)",
    "handle page faults": "numbered(323, 0)",
    "use io_uring": "numbered(425, 8, 0)",
    "share memory by System V": "called('shmget', 0x4D45, 4096, 0o1666)",
    "share memory by a file": "open('/dev/shm/evil', 'wb').write(b'x')",
}

PROBE = """
import ctypes, json, mmap, os, socket, sys, threading
from pathlib import Path
from slides.wsi import child, isolation

facts, attempts = json.loads(sys.argv[1]), json.loads(sys.argv[2])
globals().update(facts)
start = {"slide": slide, "output": output, "files": [slide], "nice": 0,
         "limits": {"memory_bytes": 1 << 30, "cpu_seconds": 60, "file_bytes": 1 << 20}}
if namespaces:
    isolation.enter_namespaces()
    inner = os.fork()
    if inner:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
places, held = child.close_off(start, namespaces=namespaces)
slide, output = str(places["slide"]), str(places["output"])
code = Path(isolation.__file__).resolve().parent.parent
libc = ctypes.CDLL(None, use_errno=True)

def must(true):
    if not true:
        raise OSError("no")

def called(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def numbered(number, *arguments):
    if os.uname().machine != "x86_64":
        raise OSError("numbers of another machine")
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), str(number))

def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False

def follow(target):
    os.symlink(target, output + "/index.json.new")
    open(output + "/index.json.new").read()

def large_file():
    with open(output + "/big", "wb") as file:
        try:
            file.write(bytes(2 << 20))
            file.flush()
        finally:
            os.remove(output + "/big")

def threads():
    end = threading.Event()
    started = []
    try:
        for _ in range(2000):
            started.append(threading.Thread(target=end.wait, daemon=True))
            started[-1].start()
    except RuntimeError as error:
        raise OSError("no more threads") from error
    finally:
        end.set()

results = {}
for name, attempt in attempts.items():
    before = {number for number in range(256) if is_open(number)}
    try:
        exec(attempt)
        results[name] = "escaped"
    except (OSError, ValueError, MemoryError) as error:
        results[name] = f"{type(error).__name__}: {error}"
    for number in range(256):
        if number not in before and is_open(number):
            os.close(number)
usable = open(slide, "rb").read() == b"slide" and bool(Path(output, "result").write_text("ok"))
print(json.dumps({"results": results, "usable": usable}), flush=True)
os._exit(0)
"""


def probe(folder: Path, *, namespaces: bool) -> dict[str, Any]:
    slide, output, others, unix = (folder / name for name in ("a.svs", "output", "others/b.svs", "socket"))
    slide.write_bytes(b"slide")
    output.mkdir()
    others.parent.mkdir()
    others.write_text("another patient")
    abstract = f"metadet-test-{os.getpid()}-{namespaces}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as file,
        socket.socket(socket.AF_UNIX) as named,
    ):
        file.bind(str(unix))
        file.listen()
        named.bind("\0" + abstract)
        named.listen()
        facts = {
            "slide": str(slide), "output": str(output), "others": str(others), "unix": str(unix), "abstract": abstract,
            "port": tcp.getsockname()[1], "parent": os.getpid(), "key": SECRET, "namespaces": namespaces,
        }  # fmt: skip
        run = subprocess.run(
            [sys.executable, "-E", "-s", "-B", "-c", PROBE, json.dumps(facts), json.dumps(ATTEMPTS)],
            cwd=ROOT, env=sandbox.ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result | {"output": output, "slide": slide, "others": others}


def missing() -> list[str]:
    return [line for line in sandbox.isolation_report() if line.startswith("MISSING")]


@pytest.fixture(scope="module")
def in_namespaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if any("own namespaces" in line for line in missing()):
        pytest.skip(f"this system does not offer namespaces, and the start-up check says so: {missing()[0]}")
    os.environ["METADET_SECRET_KEY_OF_THE_PROBE"] = SECRET
    return probe(tmp_path_factory.mktemp("inside"), namespaces=True)


@pytest.fixture(scope="module")
def without_namespaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if any("Landlock" in line for line in missing()) or "Landlock" not in sandbox.isolation_report()[0]:
        pytest.skip("this kernel has no Landlock, and the start-up check says so")
    os.environ["METADET_SECRET_KEY_OF_THE_PROBE"] = SECRET
    return probe(tmp_path_factory.mktemp("beside"), namespaces=False)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_inside_the_namespaces_it_cannot(attempt: str, in_namespaces: dict[str, Any]) -> None:
    assert in_namespaces["results"][attempt] != "escaped"


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_where_namespaces_are_refused_it_still_cannot(attempt: str, without_namespaces: dict[str, Any]) -> None:
    assert without_namespaces["results"][attempt] != "escaped"


def test_after_all_attempts_the_child_can_still_work_and_nothing_outside_has_changed(
    in_namespaces: dict[str, Any], without_namespaces: dict[str, Any]
) -> None:
    for result in (in_namespaces, without_namespaces):
        assert result["usable"] is True
        assert result["slide"].read_bytes() == b"slide"
        assert [path.name for path in result["others"].parent.iterdir()] == ["b.svs"]


def test_a_link_left_in_the_output_folder_is_refused_and_not_followed(in_namespaces: dict[str, Any]) -> None:
    """The parent writes index.json.new: over this link it would write into another slide."""
    link = in_namespaces["output"] / "index.json.new"
    assert link.is_symlink()
    with pytest.raises(SlideRefused) as refused:
        sandbox.check_written(in_namespaces["output"], {"index.json.new": 100, "result": 100})
    assert refused.value.code is RefusalCode.DECODER_CRASHED
    link.unlink()
    sandbox.check_written(in_namespaces["output"], {"result": 100})
    with pytest.raises(SlideRefused):
        sandbox.check_written(in_namespaces["output"], {"result": 1})
    with pytest.raises(SlideRefused):
        sandbox.check_written(in_namespaces["output"], {})


def test_the_start_up_check_names_what_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine without a wall would answer; the words are the administrator's only sign of it."""
    kernel = sandbox._Kernel
    monkeypatch.setattr(kernel, "_missing", ("own namespaces: Operation not permitted", ["landlock", "filter"]))
    report = sandbox.isolation_report()
    assert [line.split(".")[0] for line in report if line.startswith("MISSING")] == [
        "MISSING: own namespaces",
        "MISSING: Landlock",
        "MISSING: the filter of system calls",
    ]
    assert "Operation not permitted" in report[1]
    assert "filter" not in report[0]
