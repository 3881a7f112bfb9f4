"""A process under test: how it starts, what it is told, how it ends.

Each module of `benchmarks.peers` is such a process, as a server or as a client::

    python -m benchmarks.peers.trio_ws server CERTIFICATE
    python -m benchmarks.peers.trio_ws client URL SIZE IN_FLIGHT

A server listens on one port for each mode that it knows, says which on stdout, as one line of
JSON, and serves until its stdin is closed. A client keeps `IN_FLIGHT` messages of `SIZE` bytes
under way until its connection ends. Nothing here knows what is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, TypeAlias

HOST = "127.0.0.1"

#: What a process under test is told by its environment, because it matters before it imports
#: anything: the core that it may use, modules that it has to do without, and the folder that its
#: library comes from, if not from where it is installed.
CORE = "BENCHMARKS_CORE"
WITHOUT = "BENCHMARKS_WITHOUT"
LIBRARY = "BENCHMARKS_LIBRARY"


class Mode(StrEnum):
    """What a server does with its connections. Every mode accepts messages of any size.

    Keepalive is off, except in the idle modes: the load knows nothing of pings.
    """

    ECHO = "echo"  # over plain TCP, without compression
    TLS = "tls"  # the same over TLS
    DEFLATE = "deflate"  # the same with permessage-deflate, where the client asks for it
    BROADCAST = "broadcast"  # each message to all connections
    BROADCAST_TLS = "broadcast-tls"  # the same over TLS
    IDLE = "idle"  # as ECHO, with keepalive on, however the peer does it
    IDLE_DEFLATE = "idle-deflate"  # as DEFLATE, with keepalive on


Serve: TypeAlias = Callable[[ssl.SSLContext], Awaitable[None]]
Talk: TypeAlias = Callable[[str, str, int], Awaitable[None]]
Runner: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]


def prepare() -> None:
    """To be called before the library under test is imported."""
    core = os.environ.get(CORE)
    if core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    for module in os.environ.get(WITHOUT, "").split():
        # An import of it now raises ImportError, as where it is not installed.
        sys.modules[module] = None  # type: ignore[assignment]
    library = os.environ.get(LIBRARY)
    if library:
        # That folder may have a `benchmarks` as well. This one is imported already.
        sys.path.insert(0, library)


def main(run: Runner, serve: Serve, talk: Talk | None = None) -> None:
    """Be what the command line says."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    role, *arguments = sys.argv[1:]
    if role == "server":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments[0])
        run(lambda: serve(context))
    else:
        assert role == "client"
        assert talk is not None
        url, size, in_flight = arguments
        message, count = "x" * int(size), int(in_flight)
        run(lambda: talk(url, message, count))


def announce(ports: dict[Mode, int]) -> None:
    """Say where the server listens."""
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()


def run_asyncio(start: Callable[[], Awaitable[None]]) -> None:
    """On asyncio's own event loop."""
    asyncio.run(_as_coroutine(start))


def run_uvloop(start: Callable[[], Awaitable[None]]) -> None:
    """On uvloop where it is installed, which it is not where the tests run."""
    try:
        import uvloop  # noqa: PLC0415 - see above
    except ImportError:
        run_asyncio(start)
    else:
        uvloop.run(_as_coroutine(start))


async def _as_coroutine(start: Callable[[], Awaitable[Any]]) -> None:
    await start()


def _end_with_parent() -> None:
    # However the parent ends, its end of the pipe is closed. This thread waits in the kernel until
    # then, and costs the one under test nothing. (By sys.stdin it would hold a lock at the end.)
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)
