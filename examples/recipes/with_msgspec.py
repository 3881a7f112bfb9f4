"""Typed messages in JSON, checked as they are read. Needs: pip install msgspec

Talk to it by `trio-ws connect ws://localhost:8765`, and type {"type": "add", "item": "tea"}.
"""

import argparse
from functools import partial
from typing import Annotated

import msgspec
import trio

from trio_ws import CloseCode, WebSocket, WebSocketServer, serve_websocket


class Add(msgspec.Struct, tag="add", forbid_unknown_fields=True):
    item: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    count: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1


class Clear(msgspec.Struct, tag="clear", forbid_unknown_fields=True):
    pass


class Basket(msgspec.Struct, tag="basket"):
    items: dict[str, int]


# Made once: a decoder is compiled for its type.
decoder: msgspec.json.Decoder[Add | Clear] = msgspec.json.Decoder(Add | Clear)
encoder = msgspec.json.Encoder()


def close_reason(exc: Exception) -> str:
    """What is wrong, in as much as a Close frame has room for: 123 bytes of UTF-8."""
    return str(exc).encode("utf-8", "replace")[:123].decode("utf-8", "ignore")


async def shop(ws: WebSocket) -> None:
    basket = Basket({})
    async for message in ws:
        try:
            request = decoder.decode(message)
        except (ValueError, RecursionError) as exc:  # a msgspec.DecodeError is a ValueError
            await ws.aclose(CloseCode.UNSUPPORTED_DATA, close_reason(exc))
            return
        match request:
            case Add(item, count):
                basket.items[item] = basket.items.get(item, 0) + count
            case Clear():
                basket.items.clear()
        await ws.send_json(basket, dumps=encoder.encode)


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, shop, "localhost", port, max_message_size=4096)
        server: WebSocketServer = await nursery.start(serve)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    try:
        trio.run(main, parser.parse_args().port)
    except* KeyboardInterrupt:
        pass
