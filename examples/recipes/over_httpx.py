"""Opens a WebSocket over httpx, with its proxies, certificates, authentication and cookies.

The handshake is still that of trio_ws: httpx carries its request and the response. The connection
is then the network stream that httpx hands out after a 101.
"""

import argparse

import h11
import httpcore
import httpx
import trio

from trio_ws import wrap_client_stream

BROKEN = (httpx.TransportError, httpcore.NetworkError)

#: The fields that describe a body as it came. httpx gives it decoded.
FRAMING = ("content-encoding", "content-length", "transfer-encoding")


class HttpxStream(trio.abc.Stream):
    """A stream for `wrap_client_stream`: an httpx client sends the opening request."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url.replace("ws", "http", 1)
        self._request = h11.Connection(h11.SERVER)
        self._response: httpx.Response | None = None
        self._head = b""  # of the response, with the body if it is a refusal

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            if self._response is not None:
                await self._response.extensions["network_stream"].write(bytes(data))
                return
            self._request.receive_data(bytes(data))
            request = self._request.next_event()
            if isinstance(request, h11.Request):
                await self._ask(list(request.headers))
        except BROKEN as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def _ask(self, fields: list[tuple[bytes, bytes]]) -> None:
        request = self._client.build_request("GET", self._url, headers=fields)
        self._response = response = await self._client.send(request, stream=True)
        head = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}"]
        head += [f"{k}: {v}" for k, v in response.headers.multi_items() if k not in FRAMING]
        body = b""
        if response.status_code != 101:
            body = await response.aread()
            head.append(f"Content-Length: {len(body)}")
        self._head = "\r\n".join([*head, "", ""]).encode("latin-1") + body

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert self._response is not None  # a client speaks first
        if self._head:
            await trio.lowlevel.checkpoint()
            data, self._head = self._head[:max_bytes], self._head[max_bytes or len(self._head) :]
            return data
        try:
            stream: httpcore.AsyncNetworkStream = self._response.extensions["network_stream"]
            return await stream.read(max_bytes or 65536)
        except BROKEN as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()
        await trio.lowlevel.checkpoint()


async def main(url: str) -> None:
    async with (
        httpx.AsyncClient() as client,
        wrap_client_stream(HttpxStream(client, url), url) as ws,
    ):
        await ws.send("Hello world!")
        print(await ws.receive())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8765/")
    trio.run(main, parser.parse_args().url)
