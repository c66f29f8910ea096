"""A seccomp filter for the decoding child: no sockets, no new processes, no tracing, no mounts. Standard library alone.

Listed calls answer EPERM; `clone` is let through for threads only, `clone3` answers ENOSYS so that libc falls back to
`clone`, and `tgkill`, which abort() needs, reaches this process alone. Everything else is allowed: the list closes doors, the namespaces are the wall. seccomp(2), linux/filter.h.
"""

import ctypes
import errno
import os
import struct

_SET_SECCOMP, _FILTER_MODE = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _AND_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32_BIT = 0x40000000  # the same calls again under other numbers
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_CLONE_THREAD = 0x00010000

# machine: (audit architecture, clone, clone3, tgkill, refused)
_X86_64_REFUSED = (
    41, 42, 43, 44, 45, 46, 47, 49, 50, 53, 288, 299, 307,  # socket .. sendmmsg
    57, 58, 59, 322,  # fork, vfork, execve, execveat
    101, 310, 311, 312, 438, 434,  # ptrace, process_vm_*, kcmp, pidfd_getfd, pidfd_open
    62, 129, 200, 297, 424,  # kill, sigqueue, tkill
    29, 30, 31, 67, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241, 242, 243, 244, 245,  # shared memory, semaphores, queues
    165, 166, 155, 161, 272, 308, 428, 429, 430, 431, 432, 442,  # mounts, chroot, unshare, setns, new mount calls
    248, 249, 250, 321, 298, 323, 425, 426, 427,  # keys, bpf, perf, userfaultfd, io_uring
    175, 176, 313, 246, 320, 169, 170, 171, 164, 227,  # modules, kexec, reboot, names, clocks
    133, 259, 86, 265,  # mknod, link
)  # fmt: skip
_AARCH64_REFUSED = (
    198, 199, 200, 201, 202, 203, 206, 207, 211, 212, 242, 243, 269,
    221, 281,
    117, 270, 271, 272, 438, 434,
    129, 138, 424,
    194, 195, 196, 197, 190, 191, 192, 193, 186, 187, 188, 189, 180, 181, 182, 183, 184, 185,
    39, 40, 41, 51, 97, 268, 428, 429, 430, 431, 432, 442,
    217, 218, 219, 280, 241, 282, 425, 426, 427,
    104, 105, 106, 142, 161, 162, 170, 112, 273, 294,
    33, 37,
)  # fmt: skip
_MACHINES = {
    "x86_64": (0xC000003E, 56, 435, 234, _X86_64_REFUSED),
    "aarch64": (0xC00000B7, 220, 435, 131, _AARCH64_REFUSED),
}


def install() -> bool:
    """Put the filter on this process and its threads for good; false where this machine has none."""
    rules = _MACHINES.get(os.uname().machine)
    if rules is None:
        return False
    program = _program(*rules)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.create_string_buffer(header, len(header))
    return int(library.prctl(_SET_SECCOMP, _FILTER_MODE, pointer, 0, 0)) == 0


def _program(architecture: int, clone: int, clone3: int, tgkill: int, refused: tuple[int, ...]) -> bytes:
    """Each refused call is a compare followed by its own return, so that no jump is longer than one."""
    no, none = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, no),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, no),
    ]
    for number in refused:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, no)]
    lines += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, none)]
    lines += [
        (_EQUAL, 0, 4, tgkill),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 0, 1, os.getpid()),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, no),
    ]
    lines += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_AND_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, no),
    ]
    lines += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
