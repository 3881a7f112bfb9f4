"""The client of Tornado, with compression: `URL SCENARIO`, see `tests.interop.scenarios`."""

from __future__ import annotations

import asyncio
import sys

from tornado.websocket import websocket_connect

from tests.interop.messages import SIZES, describe, make
from tests.interop.peers.reporting import report


async def main(url: str, scenario: str) -> None:
    websocket = await websocket_connect(url, compression_options={}, max_message_size=2_000_000)
    if scenario in ("text", "binary"):
        for size in SIZES:
            message = make(scenario, size)
            await websocket.write_message(message, binary=isinstance(message, bytes))
            answer = await websocket.read_message()
            assert answer is not None
            report("message", **describe(answer))
        websocket.close(1000)
    elif scenario == "close":
        websocket.close(4000, "bye")
    assert await websocket.read_message() is None
    report("closed", code=websocket.close_code, reason=websocket.close_reason or "")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
