"""The server of Tornado, with compression: /close closes with 4000, any other path echoes."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tests.interop.messages import describe
from tests.interop.peers.reporting import report


class Echo(WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def open(self, *args: str, **kwargs: str) -> None:
        if self.request.path == "/close":
            self.close(4000, "bye")

    async def on_message(self, message: str | bytes) -> None:
        report("message", **describe(message))
        await self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        report("closed", code=self.close_code, reason=self.close_reason or "")


async def main() -> None:
    server = HTTPServer(Application([("/.*", Echo)], websocket_max_message_size=2_000_000))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    report("listening", port=sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)
    server.stop()


if __name__ == "__main__":
    asyncio.run(main())
