"""What the kernel is asked to take away from the process that decodes a slide. Standard library alone.

Order: own user, mount, process, network and IPC namespaces with a root folder that shows the slide, one output folder
and the interpreter; then limits; then no privileges, Landlock rules for the same files, and a filter that refuses system
calls a decoder has no use for. Where the kernel or the container refuses namespaces, all the others remain.
"""

import ctypes
import os
import resource
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from slides.wsi import file_rules

_LIBC = ctypes.CDLL(None, use_errno=True)

_NEW_MOUNT, _NEW_USER, _NEW_PID, _NEW_NET, _NEW_IPC, _NEW_UTS = (
    0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000
)  # fmt: skip
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18
)  # fmt: skip
_DETACH = 2
_SET_DUMPABLE, _SET_NO_NEW_PRIVS, _CAPBSET_DROP, _SET_PDEATHSIG = 4, 38, 24, 1
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_INSIDE_ID = 1000

PROCESS_LIMIT = 64
_DICOM = (".dcm", "")
DEVICES = tuple(Path("/dev") / name for name in ("null", "zero", "urandom"))


@dataclass(frozen=True, slots=True)
class View:
    """What the child may see, as (path inside, path outside): everything else is not there at all."""

    read_only: tuple[tuple[Path, Path], ...]
    writable: tuple[tuple[Path, Path], ...] = ()


class NotIsolated(Exception):
    """The kernel refused a step; the text names it."""


def enter_namespaces() -> None:
    """New namespaces for this single-threaded process; its next child is process 1. Raises NotIsolated."""
    user, group = os.geteuid(), os.getegid()
    flags = _NEW_USER | _NEW_MOUNT | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS
    if _LIBC.unshare(flags) != 0:
        raise NotIsolated(f"own namespaces: {os.strerror(ctypes.get_errno())}")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{_INSIDE_ID} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{_INSIDE_ID} {group} 1")
    except OSError as error:
        raise NotIsolated(f"own user namespace: {error.strerror}") from error


def show_only(view: View, *, code: Path) -> None:
    """Replace the root folder by one that holds the interpreter, `code`, and the view. Needs enter_namespaces first."""
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    read_only = {path: os.open(path, os.O_PATH) for path in interpreter_paths(code)}
    read_only |= {inside: os.open(outside, os.O_PATH) for inside, outside in view.read_only}
    writable = {inside: os.open(outside, os.O_PATH) for inside, outside in view.writable}
    devices = {device: os.open(device, os.O_PATH) for device in DEVICES}
    root = Path("/tmp")
    _mount("tmpfs", str(root), "tmpfs", _NO_SUID | _NO_DEV, "size=1m,mode=755")
    for inside, descriptor in read_only.items():
        _bind(descriptor, root / inside.relative_to("/"), _READ_ONLY | _NO_SUID | _NO_DEV)
    for inside, descriptor in writable.items():
        _bind(descriptor, root / inside.relative_to("/"), _NO_SUID | _NO_DEV)
    for inside, descriptor in devices.items():
        _bind(descriptor, root / inside.relative_to("/"), None)
    for descriptor in (read_only | writable | devices).values():
        os.close(descriptor)
    _link_merged_folders(root)
    _pivot(root)


def interpreter_paths(code: Path) -> list[Path]:
    """Folders and files Python and the shared libraries are loaded from, none inside another."""
    wanted = [Path(sys.prefix), Path(sys.base_prefix), code, Path(sys.executable).resolve().parent.parent]
    wanted += [Path(entry) for entry in ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf")]
    wanted += [Path(entry) for entry in sys.path if entry and Path(entry).is_dir() and entry != str(code.parent)]
    wanted = [path for path in wanted if path.exists() and not path.is_symlink()]
    return [path for path in dict.fromkeys(wanted) if not any(other in path.parents for other in wanted)]


def _link_merged_folders(root: Path) -> None:
    for name in ("lib", "lib64", "bin"):
        outside = Path("/") / name
        if outside.is_symlink() and not (root / name).exists():
            (root / name).symlink_to(os.readlink(outside))


def _bind(descriptor: int, target: Path, flags: int | None) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    source = f"/proc/self/fd/{descriptor}"
    inherited = os.fstatvfs(descriptor).f_flag & (_READ_ONLY | _NO_SUID | _NO_DEV | _NO_EXEC)  # may not be lifted
    _mount(source, str(target), None, _BIND | _RECURSIVE)
    if flags is not None:
        _mount(None, str(target), None, _BIND | _REMOUNT | flags | inherited)


def _pivot(root: Path) -> None:
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise NotIsolated(f"pivot_root is not known for {os.uname().machine}")
    old = root / "old"
    old.mkdir()
    _check(_LIBC.syscall(number, str(root).encode(), str(old).encode()), "an own root folder")
    os.chdir("/")
    _check(_LIBC.umount2(b"/old", _DETACH), "hiding the other files")
    os.rmdir("/old")
    _mount(None, "/", None, _BIND | _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEV)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    result = _LIBC.mount(
        source.encode() if source else None,
        target.encode(),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(result, f"mounting {target}")


def _check(result: int, step: str) -> None:
    if result != 0:
        raise NotIsolated(f"{step}: {os.strerror(ctypes.get_errno())}")


def limit_resources(*, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Hard limits of memory, processor time, file size, open files and processes; no core file."""
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def limit_processes() -> None:
    """Root is exempt from this limit; the system call filter holds there too."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    value = PROCESS_LIMIT if hard == resource.RLIM_INFINITY else min(PROCESS_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (value, value))


def drop_privileges() -> None:
    """No capability left, none to be gained, not readable by other processes of the same user."""
    for capability in range(64):
        _LIBC.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_LIBC.capset(header, nothing), "dropping capabilities")
    _check(_LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    _check(_LIBC.prctl(_SET_DUMPABLE, 0, 0, 0, 0), "not dumpable")


def die_with_parent() -> None:
    _LIBC.prctl(_SET_PDEATHSIG, 9, 0, 0, 0)


def allow_only_view(view: View, *, code: Path) -> bool:
    """Landlock rules for the paths of `view` as they are now. False where the kernel has no Landlock.

    OpenSlide looks at the names beside a DICOM file for the rest of its series, and gives up if it may not; beside no
    other file may names be read.
    """
    return file_rules.allow_only(
        read=[*interpreter_paths(code), *(inside for inside, _ in view.read_only)],
        write=[inside for inside, _ in view.writable],
        names={inside.parent for inside, _ in view.read_only if inside.suffix.lower() in _DICOM and inside.is_file()},
        devices=DEVICES,
    )
