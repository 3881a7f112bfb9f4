"""``trio-ws connect``: a WebSocket in the terminal, or in a pipe.

Each line of the standard input is sent as a text message. Messages that arrive go to the standard
output, and everything else goes to the standard error.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final, Unpack

import trio

from .._client.client import open_websocket_url
from .._connection.websocket import WebSocket
from .._errors import ConnectionLost
from .._keywords import ClientKeywords
from .._redaction import masked
from .exits import DONE, FAILED

#: Control characters. A peer could move the cursor with them, clear the screen, or do worse.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

STDIN: Final = 0
_READ_SIZE: Final = 65536

#: How many bytes of a binary message are shown.
_SHOWN_BYTES: Final = 64


async def talk(url: str, wait: float, **options: Unpack[ClientKeywords]) -> int:
    """Connect, and talk until the peer closes or the input ends. Returns the exit code.

    Args:
        url: the URL to connect to.
        wait: how long to go on listening after the end of the input, in seconds.
        options: those of `open_websocket_url`.

    Raises:
        HandshakeError: the connection could not be opened.
        ValueError: an option is wrong.
    """
    async with open_websocket_url(url, **options) as ws:
        _note(f"Connected to {masked(url)}" + (f", {ws.subprotocol}" if ws.subprotocol else ""))
        with suppress(ConnectionLost):  # the reason is shown below
            await _converse(ws, wait)
    reason = await ws.wait_closed()
    _note(f"Closed: {reason}")
    return DONE if reason.orderly else FAILED


async def _converse(ws: WebSocket, wait: float) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(_show_messages, ws)
        async with aclosing(_input_lines()) as lines:
            async for line in lines:
                await ws.send(line)
        await trio.sleep(wait)
        nursery.cancel_scope.cancel()


async def _input_lines() -> AsyncGenerator[str, None]:
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest = ""
    while True:
        # A thread that waits in sys.stdin would hold its lock, and Python needs that lock to exit.
        # A thread that waits in os.read can be abandoned; it ends with the process.
        data = await trio.to_thread.run_sync(os.read, STDIN, _READ_SIZE, abandon_on_cancel=True)
        *lines, rest = (rest + decode(data, final=not data)).split("\n")
        for line in lines:
            yield line.removesuffix("\r")
        if not data:
            break
    if rest:
        yield rest


async def _show_messages(ws: WebSocket) -> None:
    async for message in ws:
        text = "< " + _printable(message)
        encoding = sys.stdout.encoding
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()


def _printable(message: str | bytes) -> str:
    if not isinstance(message, str):
        more = " …" if len(message) > _SHOWN_BYTES else ""
        return f"({len(message)} bytes) {message[:_SHOWN_BYTES].hex(' ')}{more}"
    text = _CONTROL.sub(lambda found: repr(found[0])[1:-1], message)
    return text.replace("\n", "\n< ")


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")
