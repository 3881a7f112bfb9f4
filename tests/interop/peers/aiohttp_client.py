"""aiohttp's client: `URL SCENARIO`, see `tests.interop.scenarios`."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession, WSMsgType

from tests.interop.messages import SIZES, describe, make
from tests.interop.peers.reporting import report


async def main(url: str, scenario: str) -> None:
    async with (
        ClientSession() as session,
        session.ws_connect(url, max_msg_size=0, compress=15) as websocket,
    ):
        if scenario in ("text", "binary"):
            for size in SIZES:
                message = make(scenario, size)
                if isinstance(message, str):
                    await websocket.send_str(message)
                else:
                    await websocket.send_bytes(message)
                report("message", **describe((await websocket.receive()).data))
            await websocket.close()
            report("closed", code=websocket.close_code, reason="")
        elif scenario == "close":
            await websocket.close(code=4000, message=b"bye")
            report("closed", code=websocket.close_code, reason="bye")
        else:
            # It gives the reason only here, and answers with 1000 whatever it was told.
            closing = await websocket.receive()
            assert closing.type is WSMsgType.CLOSE
            report("closed", code=closing.data, reason=closing.extra)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
