"""Ending a listening socket without resetting connections that clients believe to have."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

__all__ = ["take_on_no_more"]

SO_ATTACH_FILTER = 26
"""Linux's number, which Python's socket module does not name."""
FLAGS, SYN = 13, 0x02
"""Byte of a TCP header that holds the flags, and the flag that asks for a connection."""
DROP_SYN = (
    (0x30, 0, 0, FLAGS),  # load the byte
    (0x45, 0, 1, SYN),  # without the flag, skip the next instruction
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)
"""A classic BPF program: operation, jumps if true and false, operand (linux/filter.h)."""


def take_on_no_more(sock: socket.socket) -> None:
    """Make the kernel ignore requests for new connections; those in its queue, and half open, still come.

    A client that asks is not answered, asks again a second later, and is refused because the socket is closed by then.
    A backlog of 0 would still let one in. Elsewhere than on Linux it is all there is.

    Args:
        sock: a TCP socket that listens.

    Raises:
        OSError: where the kernel does not allow it.
    """
    if sys.platform != "linux":
        sock.listen(0)
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_SYN))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(DROP_SYN), ctypes.addressof(program)))
