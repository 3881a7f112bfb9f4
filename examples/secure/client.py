"""The greeting client over TLS. It trusts the authority that make_certificate.py made up.

For a server with a certificate of a public authority, leave `ssl_context` out.
"""

import argparse
import ssl
from pathlib import Path

import trio

from trio_ws import open_websocket_url

HERE = Path(__file__).parent


async def main(url: str, authority: Path) -> None:
    ssl_context = ssl.create_default_context(cafile=authority)
    async with open_websocket_url(url, ssl_context=ssl_context) as ws:
        await ws.send("trio")
        print(f"<<< {await ws.receive()!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="wss://localhost:8765/")
    parser.add_argument("--authority", type=Path, default=HERE / "ca.pem")
    arguments = parser.parse_args()
    trio.run(main, arguments.url, arguments.authority)
