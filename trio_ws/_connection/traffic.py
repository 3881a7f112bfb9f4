"""What connections have carried and what waits in them, added up for many at once.

This module owns where a connection counts what. It is for metrics: `WebSocket.statistics` makes an
object for each connection, which would take five times as long.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._metering import (
    BACKLOGGED,
    BROADCAST_QUEUE_MESSAGES,
    BYTES_RECEIVED,
    BYTES_SENT,
    MESSAGES_RECEIVED,
    MESSAGES_SENT,
    RECEIVE_QUEUE_BYTES,
    RECEIVE_QUEUE_MESSAGES,
    SEND_QUEUE_BYTES,
    Numbers,
)
from .websocket import WebSocket


def add_traffic(websockets: Iterable[WebSocket], numbers: Numbers) -> None:
    """Add what went each way through these connections. It never becomes less."""
    messages_received = messages_sent = bytes_received = bytes_sent = 0
    for websocket in websockets:
        reader, outbox = websocket._reader, websocket._outbox
        messages_received += reader.messages_received
        bytes_received += reader.bytes_received
        messages_sent += websocket._sender.messages_sent + outbox.messages_posted
        # Not all that was taken: what waits in line may be taken back.
        bytes_sent += outbox.bytes_taken - outbox.unsent
    numbers[MESSAGES_RECEIVED.start] += messages_received
    numbers[BYTES_RECEIVED.start] += bytes_received
    numbers[MESSAGES_SENT.start] += messages_sent
    numbers[BYTES_SENT.start] += bytes_sent


def add_queues(websockets: Iterable[WebSocket], numbers: Numbers) -> None:
    """Add what waits in these connections, in both directions."""
    messages = held = unsent = backlogged = posted = 0
    for websocket in websockets:
        outbox = websocket._outbox
        waiting, size = websocket._inbox.statistics()
        messages += waiting
        held += size
        if outbox.unsent:
            unsent += outbox.unsent
            backlogged += 1
            posted += outbox.in_line()[0]
    numbers[RECEIVE_QUEUE_MESSAGES.start] += messages
    numbers[RECEIVE_QUEUE_BYTES.start] += held
    numbers[SEND_QUEUE_BYTES.start] += unsent
    numbers[BACKLOGGED.start] += backlogged
    numbers[BROADCAST_QUEUE_MESSAGES.start] += posted
