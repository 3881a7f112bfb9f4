"""A client that shows a certificate, and says whose certificate the server has."""

import argparse
import ssl
from pathlib import Path

import trio

from trio_ws import open_websocket_url

HERE = Path(__file__).parent


async def main(url: str, authority: Path, certificate: Path) -> None:
    ssl_context = ssl.create_default_context(cafile=authority)
    ssl_context.load_cert_chain(certificate)
    async with open_websocket_url(url, ssl_context=ssl_context) as ws:
        assert ws.tls is not None
        print(f"{ws.tls.version()}, {(ws.tls.getpeercert() or {})['subjectAltName']}")
        print(await ws.receive())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="wss://localhost:8765/")
    parser.add_argument("--authority", type=Path, default=HERE / "ca.pem")
    parser.add_argument("--certificate", type=Path, default=HERE / "client.pem")
    arguments = parser.parse_args()
    trio.run(main, arguments.url, arguments.authority, arguments.certificate)
