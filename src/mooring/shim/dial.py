"""Connections into the instance's network namespace.

The shim enters that namespace itself, once and for good, at the first dial: its own sockets are Unix sockets with paths,
which no network namespace touches, and from then on a dial costs one connect.
"""

import os
import socket

from mooring.kit import namespaces


def enter_network(init_pid: int) -> None:
    """Make the network namespace of a process this process's. Raises OSError."""
    network = namespaces.open_network(init_pid)
    try:
        namespaces.enter_network(network)
    finally:
        os.close(network)


def connect(port: int) -> socket.socket:
    """Begin to connect to a port on this namespace's loopback; writable when decided."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = connection.connect_ex(("127.0.0.1", port))
    if number not in (0, 115):  # EINPROGRESS
        connection.close()
        raise OSError(number, os.strerror(number))
    return connection
