"""The trio client of `websockets`: `URL SCENARIO`, see `tests.interop.scenarios`."""

from __future__ import annotations

import sys

import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect

from tests.interop.messages import SIZES, describe, make
from tests.interop.peers.reporting import report


async def main(url: str, scenario: str) -> None:
    async with connect(url, max_size=None, proxy=None) as websocket:
        if scenario in ("text", "binary"):
            for size in SIZES:
                await websocket.send(make(scenario, size))
                report("message", **describe(await websocket.recv()))
            await websocket.aclose()
        elif scenario == "close":
            await websocket.aclose(4000, "bye")
        try:
            await websocket.recv()
        except ConnectionClosed:
            report("closed", code=websocket.close_code, reason=websocket.close_reason)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
