"""Connections whose other side is gone without a word (a cable pulled, a laptop asleep) end within a minute.

The server would wait for the next bytes of such a request for ever, with a thread of its own. Connections take over the
options of the socket that they were accepted on, and that one is among this process's descriptors.
"""

import os
import socket
from functools import cache
from pathlib import Path

IDLE_SECONDS = 20
BETWEEN_PROBES_SECONDS = 5
PROBES = 4
_DESCRIPTORS = Path("/proc/self/fd")


@cache
def notice_dead_peers() -> int:
    """Sets it once for every TCP socket of this process; how many. Call in a request: granian's workers open the socket
    that they listen on after the application is loaded."""
    names = os.listdir(_DESCRIPTORS) if _DESCRIPTORS.is_dir() else []
    return sum(_set(name) for name in names)


def _set(descriptor: str) -> bool:
    try:
        if not os.readlink(_DESCRIPTORS / descriptor).startswith("socket:"):
            return False
        each = socket.socket(fileno=os.dup(int(descriptor)))
    except OSError:
        return False  # closed meanwhile
    with each:
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.type != socket.SOCK_STREAM:
            return False
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, BETWEEN_PROBES_SECONDS)
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return True
