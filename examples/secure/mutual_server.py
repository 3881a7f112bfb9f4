"""A server for clients that show a certificate, over TLS. Run make_certificate.py first.

On SIGHUP it reads its own certificate and the clients' authority again: `kill -HUP`, followed by
the number that it prints.
"""

import argparse
import os
import signal
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from trio_ws import WebSocket, WebSocketServer, serve_websocket

HERE = Path(__file__).parent


def load(certificate: Path, authority: Path) -> ssl.SSLContext:
    ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ssl_context.load_cert_chain(certificate)
    ssl_context.load_verify_locations(authority)
    ssl_context.verify_mode = ssl.CERT_REQUIRED
    return ssl_context


def common_name(certificate: Mapping[str, Any]) -> str:
    """Whose certificate it is: its subject is parts of pairs of a name and a value."""
    return str(dict(pair for part in certificate["subject"] for pair in part)["commonName"])


async def hello(ws: WebSocket) -> None:
    assert ws.tls is not None
    await ws.send(f"Hello {common_name(ws.tls.getpeercert() or {})}!")
    await ws.wait_closed()


async def renew(
    ssl_context: ssl.SSLContext,
    load_again: Callable[[], ssl.SSLContext],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Have handshakes from each SIGHUP on use what the files hold by then."""
    renewed = ssl_context

    def present(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        tls.context = renewed

    ssl_context.sni_callback = present  # called in each handshake, also without a name
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                renewed = load_again()
            except OSError as exc:  # ssl.SSLError is one
                print(f"The certificate in use stays: {exc}", flush=True)
            else:
                print("New connections get the new certificate", flush=True)


async def main(port: int, certificate: Path, authority: Path) -> None:
    ssl_context = load(certificate, authority)
    serve = partial(serve_websocket, hello, "localhost", port, ssl_context=ssl_context)
    async with trio.open_nursery() as nursery:
        await nursery.start(renew, ssl_context, partial(load, certificate, authority))
        server: WebSocketServer = await nursery.start(serve)
        print(f"Serving on {server.urls[0]} (Ctrl-C ends it)", flush=True)
        print(f"Process {os.getpid()}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    parser.add_argument("--certificate", type=Path, default=HERE / "server.pem")
    parser.add_argument("--authority", type=Path, default=HERE / "ca.pem")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port, arguments.certificate, arguments.authority)
    except* KeyboardInterrupt:
        pass
