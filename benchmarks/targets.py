"""What trio_ws is to reach, beside its peers: the only place that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PLAIN, SPEEDUPS = "trio_ws", "trio_ws_speedups"


@dataclass(frozen=True)
class Target:
    """In this case, at least so many times a peer's result; or, without a peer, at most so much.

    Or, with `than`: at most so many times the processor time that an event takes in that case.
    """

    case: str
    bound: float
    peer: str | None = None
    subject: str = PLAIN
    than: str | None = None


def targets(
    *cases: str, subject: str = PLAIN, at_most: float | None = None, **at_least: float
) -> Iterator[Target]:
    """For each of the cases: how many times each peer's result, by the peer's name."""
    for case in cases:
        for peer, bound in at_least.items():
            yield Target(case, bound, peer, subject)
        if at_most is not None:
            yield Target(case, at_most, None, subject)


TARGETS = (
    *targets("echo-16", "echo-1k", picows=1.1, raw_trio=0.75, bare_trio=0.9),
    *targets("flight-16", "flight-125", picows=1.5, websockets_trio=8),
    *targets("many-125", raw_trio=0.85, bare_trio=0.9, websockets_trio=2.5),
    *targets("paced-100", "paced-1000", "paced-5000", bare_trio=0.74, websockets_asyncio=1.11),
    *targets("paced-100-tls", "paced-1000-tls", "paced-5000-tls", websockets_asyncio=1.11),
    *targets("echo-1m", subject=SPEEDUPS, aiohttp=1.0, websockets_asyncio=1.5, websockets_trio=3),
    *targets("echo-64k", subject=SPEEDUPS, aiohttp=1.0, websockets_trio=1.6),
    *targets("echo-64k", "echo-1m", websockets_trio=0.8),
    *targets("tls-125", "tls-64k", websockets_asyncio=1.0, websockets_uvloop=1.0, picows=1.5),
    *targets("deflate-1k", websockets_asyncio=1.0),
    *targets("deflate-1k", subject=SPEEDUPS, aiohttp=1.0),
    *targets("broadcast", picows=1.0, websockets_trio=8),
    *targets("broadcast-tls", websockets_asyncio=1.0),
    *targets("handshake", "handshake-8", websockets_asyncio=0.9, websockets_trio=2.3),
    *targets("handshake-8", websockets_uvloop=1.0),
    *targets("handshake-tls", "handshake-8-tls", websockets_asyncio=0.9),
    *targets("memory", "memory-deflate", at_most=10),
    *targets("client-16", picows=1.5),
    Target("connections-10000", 2, than="connections-100"),
)
