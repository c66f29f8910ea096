"""Code that runs as the decoding child tries to get out. Each attempt must fail, with and without namespaces."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from slides.wsi import file_rules, sandbox

ROOT = Path(__file__).resolve().parents[3]

PROBE = """
import ctypes, json, mmap, os, socket, sys
from pathlib import Path
from slides.wsi import isolation, syscall_filter

slide, output, secret, port, unix, parent, namespaces = json.loads(sys.argv[1])
code = Path(isolation.__file__).resolve().parent.parent
view = isolation.View(((Path(slide), Path(slide)),), ((Path(output), Path(output)),))
if namespaces:
    isolation.enter_namespaces()
    inner = os.fork()
    if inner:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
    view = isolation.View(((Path("/slide/a.svs"), Path(slide)),), ((Path("/output"), Path(output)),))
    isolation.show_only(view, code=code)
    slide, output = "/slide/a.svs", "/output"
isolation.limit_resources(memory_bytes=1 << 30, cpu_seconds=20, file_bytes=1 << 20)
isolation.limit_processes()
isolation.drop_privileges()
isolation.die_with_parent()
isolation.allow_only_view(view, code=code)
syscall_filter.install()
libc = ctypes.CDLL(None, use_errno=True)

def called(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def big_file():
    with open(output + "/big", "wb") as file:
        file.write(bytes(2 << 20))
        file.flush()

attempts = {
    "read a secret": lambda: open(secret).read(),
    "list the accounts": lambda: os.listdir("/home") + os.listdir("/root"),
    "read the account file": lambda: open("/etc/passwd").read(),
    "read the settings": lambda: open(code.parent / "pyproject.toml").read(),
    "see other processes": lambda: os.listdir(f"/proc/{parent}"),
    "read the memory of the parent": lambda: open(f"/proc/{parent}/mem", "rb"),
    "read its environment": lambda: open(f"/proc/{parent}/environ", "rb").read(),
    "write over the slide": lambda: open(slide, "r+b"),
    "write into the code": lambda: open(isolation.__file__, "r+b"),
    "write beside the slide": lambda: open(secret + ".evil", "w"),
    "connect by TCP": lambda: socket.create_connection(("127.0.0.1", port), 1),
    "connect by a socket file": lambda: socket.socket(socket.AF_UNIX).connect(unix),
    "make any socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "start a process": lambda: os.fork(),
    "run a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "start a shell": lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}),
    "trace the parent": lambda: called("ptrace", 16, parent, 0, 0),
    "stop the parent": lambda: os.kill(parent, 0),
    "mount": lambda: called("mount", b"x", b"/", b"tmpfs", 0, None),
    "leave by new namespaces": lambda: called("unshare", 0x10000000),
    "take root": lambda: (os.setuid(0), open("/etc/shadow").read()),
    "fill the disk": big_file,
    "take all memory": lambda: mmap.mmap(-1, 2 << 30),
    "make a device": lambda: os.mknod(output + "/device", 0o60600, os.makedev(8, 0)),
}
escaped = []
for name, attempt in attempts.items():
    try:
        attempt()
        escaped.append(name)
    except (OSError, ValueError, MemoryError):
        pass
usable = open(slide, "rb").read() == b"slide" and bool(Path(output, "result").write_text("ok"))
print(json.dumps({"tried": len(attempts), "escaped": escaped, "usable": usable}), flush=True)
os._exit(0)
"""


def probe(tmp_path: Path, *, namespaces: bool) -> dict[str, object]:
    slide, output, secret, unix = (tmp_path / name for name in ("a.svs", "output", "others/secret", "socket"))
    slide.write_bytes(b"slide")
    output.mkdir()
    secret.parent.mkdir()
    secret.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as file:
        file.bind(str(unix))
        file.listen()
        facts = [str(slide), str(output), str(secret), tcp.getsockname()[1], str(unix), os.getpid(), namespaces]
        run = subprocess.run(
            [sys.executable, "-E", "-s", "-B", "-c", PROBE, json.dumps(facts)],
            cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result: dict[str, object] = json.loads(run.stdout)
    return result


def test_nothing_escapes_from_the_namespaces(tmp_path: Path) -> None:
    missing = [line for line in sandbox.isolation_report() if line.startswith("MISSING")]
    if missing:
        pytest.skip(f"this system does not offer namespaces: {missing[0]}")
    result = probe(tmp_path, namespaces=True)
    assert result["escaped"] == []
    assert result["tried"] >= 20
    assert result["usable"] is True


def test_nothing_escapes_without_namespaces_either(tmp_path: Path) -> None:
    if not file_rules.version():
        pytest.skip("this kernel has no Landlock")
    result = probe(tmp_path, namespaces=False)
    assert result["escaped"] == []
    assert result["usable"] is True
