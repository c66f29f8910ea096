"""Landlock: this process may read some paths, write below others, and nothing else. Standard library alone.

A second wall where namespaces hold, the only one over files where they are refused (many containers). Landlock also ends
TCP, abstract sockets and signals to other processes. landlock(7); structs of linux/landlock.h.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_ONLY, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1, 2, 4, 8, 1 << 14
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # from 5 on: ioctl, not needed to be asked
_TCP, _ABSTRACT_AND_SIGNALS = 0b11, 0b11

_LIBC = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    return max(0, int(_LIBC.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_ONLY))))


def allow_only(*, read: Iterable[Path], write: Iterable[Path], names: Iterable[Path], devices: Iterable[Path]) -> bool:
    """From now on for this process and its threads, for good. False where the kernel has no Landlock.

    Needs no_new_privs. Of folders in `names` only the names inside may be read; `devices` may be read and written.
    """
    offered = version()
    if not offered:
        return False
    rights = _RIGHTS_BY_VERSION[min(offered, 3)]
    network = _TCP if offered >= 4 else 0
    scope = _ABSTRACT_AND_SIGNALS if offered >= 6 else 0
    attribute = struct.pack("<QQQ", rights, network, scope)[: 8 if offered < 4 else 16 if offered < 6 else 24]
    rules = int(_LIBC.syscall(_CREATE, attribute, ctypes.c_size_t(len(attribute)), ctypes.c_uint32(0)))
    if rules < 0:
        return False
    for path in read:
        _allow(rules, path, rights & (_EXECUTE | _READ_FILE | _READ_FOLDER))
    for path in write:
        _allow(rules, path, rights & ~_EXECUTE)
    for path in names:
        _allow(rules, path, rights & _READ_FOLDER)
    for path in devices:
        _allow(rules, path, rights & (_READ_FILE | _WRITE_FILE))
    held = int(_LIBC.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))) == 0
    os.close(rules)
    return held


def _allow(rules: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("<Qi", rights, descriptor)
        if _LIBC.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)) != 0:
            raise OSError(ctypes.get_errno(), "a Landlock rule was refused", str(path))
    finally:
        os.close(descriptor)
