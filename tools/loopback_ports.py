"""Loopback TCP ports for the servers of tests, demonstrations and benchmarks."""

import contextlib
import random
import socket

from tools.postgres_binaries import ProgramFailed

PORTS = range(12_000, 22_000)
"""Below those that the system gives to outgoing connections, of which one could have the port of a
server that is about to start again."""


def free_port() -> int:
    """One that nobody listens on now; raises ProgramFailed."""
    return free_ports(1)[0]


def free_ports(count: int, and_above: int = 0) -> list[int]:
    """As many that nobody listens on now, nor on the ports so far above; raises ProgramFailed."""
    chosen: list[int] = []
    # Not by Python's own generator, which hypothesis seeds alike in all processes.
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if all(_is_free(each) for each in (port, port + and_above)):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise ProgramFailed(f"no {count} free ports from {PORTS.start} to {PORTS.stop}")


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return True
    return False
