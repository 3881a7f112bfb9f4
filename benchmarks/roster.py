"""Who is measured: each peer's name, what it needs, what it can do."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.subject import Mode

ALL_MODES = frozenset(Mode)
WITHOUT_DEFLATE = ALL_MODES - {Mode.DEFLATE, Mode.IDLE_DEFLATE}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One column of the table."""

    name: str
    """On the command line and in the results."""
    title: str
    """In tables and charts."""
    module: str
    """In `benchmarks.peers`."""
    modes: frozenset[Mode] = ALL_MODES
    is_websocket: bool = True
    """Without it there is no handshake, no client, and every byte comes back as it was sent."""
    requires: tuple[str, ...] = ()
    """Modules without which it is not measured."""
    prefers: tuple[str, ...] = ()
    """Modules without which it is slower than it could be."""
    without: tuple[str, ...] = ()
    """Modules that are hidden from it."""
    library: Path | None = None
    """The folder that its library comes from, where that is not the one installed."""

    @property
    def missing(self) -> list[str]:
        return [module for module in self.requires if find_spec(module) is None]

    @property
    def lacking(self) -> list[str]:
        return [module for module in self.prefers if find_spec(module) is None]


OURS = (
    Peer(name="trio_ws", title="trio_ws", module="trio_ws", without=("isal", "numpy")),
    Peer(
        name="trio_ws_speedups",
        title="trio_ws[speedups]",
        module="trio_ws",
        requires=("isal", "numpy"),
    ),
)

PEERS = (
    *OURS,
    Peer(
        name="websockets_trio",
        title="websockets, trio",
        module="websockets_trio",
        requires=("websockets",),
    ),
    Peer(
        name="websockets_asyncio",
        title="websockets, asyncio",
        module="websockets_asyncio",
        requires=("websockets",),
        without=("uvloop",),
    ),
    Peer(
        name="websockets_uvloop",
        title="websockets, uvloop",
        module="websockets_asyncio",
        requires=("websockets", "uvloop"),
    ),
    Peer(
        name="trio_websocket",
        title="trio-websocket",
        module="trio_websocket",
        modes=frozenset({Mode.ECHO, Mode.TLS, Mode.BROADCAST}),
        requires=("trio_websocket",),
    ),
    Peer(
        name="aiohttp",
        title="aiohttp, uvloop",
        module="aiohttp",
        requires=("aiohttp",),
        prefers=("uvloop",),
    ),
    Peer(
        name="picows",
        title="picows, uvloop",
        module="picows",
        modes=WITHOUT_DEFLATE,
        requires=("picows",),
        prefers=("uvloop", "aiofastnet"),
    ),
    Peer(
        name="raw_trio",
        title="raw TCP, trio",
        module="raw_trio",
        modes=frozenset({Mode.ECHO, Mode.TLS}),
        is_websocket=False,
    ),
    Peer(
        name="bare_trio",
        title="bare trio",
        module="bare_trio",
        modes=frozenset({Mode.ECHO}),
        is_websocket=False,
    ),
)

BY_NAME = {peer.name: peer for peer in PEERS}

#: The same from another checkout, measured beside this one where somebody says which.
BESIDE = tuple(
    replace(peer, name=f"{peer.name}_beside", title=f"{peer.title}, beside") for peer in OURS
)

#: All that results may be of, in the order of tables.
KNOWN = {peer.name: peer for peer in (*OURS, *BESIDE, *PEERS)}

#: Distributions whose versions belong to a result.
DISTRIBUTIONS = (
    "trio-ws",
    "trio",
    "wsproto",
    "isal",
    "numpy",
    "websockets",
    "trio-websocket",
    "aiohttp",
    "picows",
    "aiofastnet",
    "uvloop",
)


def versions() -> dict[str, str]:
    """Of Python, and of those distributions that are installed."""
    found = {"Python": sys.version.split()[0]}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found
