"""A server that counts claps, and says every second how many there are."""

import trio

from trio_ws import WebSocket


async def handler(ws: WebSocket) -> None:
    claps = 0

    async def tell() -> None:
        while True:
            await ws.send(f"claps: {claps}")
            await trio.sleep(1)

    async with ws.open_nursery() as nursery:
        nursery.start_soon(tell)
        async for _ in ws:
            claps += 1

    print(f"claps: {claps}. {ws.close_reason}")
