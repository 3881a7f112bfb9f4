"""Peers in processes of their own, which say what they see on stdout, one JSON object a line."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parents[2]

#: For everything that a test waits for, a browser's start included, on a busy machine.
PATIENCE = 120


def python_peer(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tests.interop.peers.{name}")


def node_peer(name: str) -> tuple[str, ...]:
    return ("node", f"tests/interop/node/{name}.js")


class Peer:
    """A running process, and what it says."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._reports = self._read_reports()

    async def next_report(self) -> dict[str, Any]:
        return await anext(self._reports)

    async def all_reports(self) -> list[dict[str, Any]]:
        """All reports from here on, until it closes its stdout, normally at its end."""
        return [report async for report in self._reports]

    async def _read_reports(self) -> AsyncGenerator[dict[str, Any], None]:
        assert self._process.stdout is not None
        unread = b""
        async for data in self._process.stdout:
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
        assert not unread

    async def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def stop(self) -> None:
        """Ask it to end, which a server does when its stdin is closed."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def aclose(self) -> None:
        await self._reports.aclose()
        assert self._process.stdout is not None
        await self._process.stdout.aclose()


@asynccontextmanager
async def run_peer(*command: str) -> AsyncGenerator[Peer, None]:
    """A peer that is asked to end with the block, and must then do so, with status 0.

    However the block ends, the process is reaped: trio kills what does not end by itself.
    """
    # Coverage, where it measures this process, is not to slow down the peer and report on it.
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    run = functools.partial(
        trio.run_process,
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            peer = Peer(await nursery.start(run))
            try:
                yield peer
                await peer.stop()
                await peer.all_reports()
            finally:
                with trio.CancelScope(shield=True):
                    await peer.aclose()
