"""Goes through the five doors of server.py, and tries them without a key."""

import argparse
import base64
from collections.abc import Sequence
from urllib.parse import urlsplit

import trio

from trio_ws import ConnectionLost, ConnectionRejected, open_websocket_url


async def knock(
    url: str,
    headers: dict[str, str] | None = None,
    *,
    offer: Sequence[str] = (),
    first: str | None = None,
) -> None:
    try:
        async with open_websocket_url(url, headers=headers or {}, subprotocols=offer) as ws:
            if first is not None:
                await ws.send(first)
            print(await ws.receive())
    except ConnectionRejected as exc:
        print(f"refused with {exc.response.status}: {exc.response.body.decode().strip()}")
    except ConnectionLost as exc:
        print(f"closed with {exc.reason.code}: {exc.reason.reason}")


async def log_in(url: str) -> str:
    """Post the password as a page would, and give the cookie. Any HTTP client does this."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host is not None
    assert port is not None
    credentials = base64.b64encode(b"ada:lovelace").decode()
    request = (
        f"POST /login HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Basic {credentials}\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(request.encode())
        response = b"".join([data async for data in stream]).decode()
    return response.partition("Set-Cookie: ")[2].partition(";")[0]


async def main(url: str) -> None:
    url = url.rstrip("/")
    await knock(f"{url}/basic")
    await knock(f"{url.replace('://', '://ada:lovelace@')}/basic")
    await knock(f"{url}/bearer")
    await knock(f"{url}/bearer", {"Authorization": "Bearer token-of-ada"})
    await knock(f"{url}/cookie")
    await knock(f"{url}/cookie", {"Cookie": await log_in(url)})
    await knock(f"{url}/subprotocol", offer=["greeting"])
    await knock(f"{url}/subprotocol", offer=["greeting", "bearer.token-of-ada"])
    await knock(f"{url}/first-message", first="guess")
    await knock(f"{url}/first-message", first="token-of-ada")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:8765")
    arguments = parser.parse_args()
    trio.run(main, arguments.url)
