"""Pings that were sent and not answered yet.

This module owns which pong answers which ping (RFC 6455 section 5.5.3). It sends nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .._buffer import bytes_of
from .._metering import PING_ROUND_TRIP, Meter
from .._protocol.wire import MAX_CONTROL_PAYLOAD

if TYPE_CHECKING:
    from typing_extensions import Buffer


def checked_payload(payload: Buffer) -> bytes:
    """The payload of a ping or a pong, at most 125 bytes (RFC 6455 section 5.5)."""
    data = bytes_of(payload, "the payload of a ping or pong is a buffer, such as bytes")
    if len(data) > MAX_CONTROL_PAYLOAD:
        raise ValueError(
            f"a ping or pong holds at most {MAX_CONTROL_PAYLOAD} bytes, not {len(data)}"
        )
    return data


class SentPing:
    """One ping, and how long its pong took; `None` until it comes."""

    __slots__ = ("done", "payload", "round_trip", "sent_at")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.sent_at = trio.current_time()
        self.round_trip: float | None = None
        self.done = trio.Event()


class SentPings:
    """The pings of one connection, in the order in which they were sent."""

    __slots__ = ("_probe", "_waiting", "latency", "meter")

    def __init__(self) -> None:
        self._waiting: list[SentPing] = []  # few: not worth a deque's memory
        self._probe: SentPing | None = None
        #: The last round trip in seconds.
        self.latency: float | None = None
        #: Is told of it, if metrics are on.
        self.meter: Meter | None = None

    @property
    def are_awaited(self) -> bool:
        """Whether a pong may come that answers one."""
        return bool(self._waiting)

    def add(self, payload: bytes) -> SentPing:
        """Remember a ping that is being sent."""
        ping = SentPing(payload)
        self._waiting.append(ping)
        return ping

    def add_probe(self, payload: bytes) -> None:
        """Remember keepalive's ping in place of its last one.

        A peer may ignore pings and yet be alive. Pings that it does not answer must not pile up.
        """
        if self._probe is not None:
            self.forget(self._probe)
        self._probe = self.add(payload)

    def forget(self, ping: SentPing) -> None:
        """No task waits for it any more."""
        if ping in self._waiting:
            self._waiting.remove(ping)

    def answer(self, payload: bytes) -> None:
        """A pong came: it answers the first ping with its payload, and all pings before that one.

        A peer need not answer each of several pings. Unsolicited and repeated pongs answer none.
        """
        if not any(ping.payload == payload for ping in self._waiting):
            return
        now = trio.current_time()
        while True:
            ping = self._waiting.pop(0)
            ping.round_trip = self.latency = now - ping.sent_at
            ping.done.set()
            if ping.payload == payload:
                if self.meter is not None:
                    self.meter.observe(PING_ROUND_TRIP, self.latency)
                return

    def give_up(self) -> None:
        """No pong will come: wake all tasks that wait for one."""
        for ping in self._waiting:
            ping.done.set()
        self._waiting.clear()
