"""The asyncio client of `websockets`: `URL SCENARIO`, see `tests.interop.scenarios`."""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.interop.messages import SIZES, describe, make
from tests.interop.peers.reporting import report


async def main(url: str, scenario: str) -> None:
    async with connect(url, max_size=None, proxy=None) as websocket:
        if scenario in ("text", "binary"):
            for size in SIZES:
                await websocket.send(make(scenario, size))
                report("message", **describe(await websocket.recv()))
            await websocket.close()
        elif scenario == "close":
            await websocket.close(4000, "bye")
        try:
            await websocket.recv()
        except ConnectionClosed:
            report("closed", code=websocket.close_code, reason=websocket.close_reason)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
