"""Frames: bytes to messages and control events, and back. No I/O, no trio, no clock.

This module owns the seam to wsproto, which judges the protocol (RFC 6455), and everything that has
to be added to it:

- limits, which wsproto does not have: a small `Extension` sees each frame's header before any of
  its payload, and refuses a message that will be too large right there;
- one clear event for each of the two ways in which wsproto ends: it reports a Close frame and a
  protocol violation alike as a `CloseConnection`, and stays OPEN after a violation;
- close code 1014, which is registered but unknown to wsproto;
- silence after the end: bytes that follow a Close frame or a violation are not looked at, where
  wsproto would raise for some.

Rules: `Wire.receive` never raises, whatever the bytes are; a `Close` or a `Violation` is the last
event that a wire ever gives; the same bytes give the same messages, however they are cut up.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from wsproto import frame_protocol
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping as WsprotoPing,
    Pong as WsprotoPong,
    TextMessage,
)
from wsproto.extensions import Extension
from wsproto.frame_protocol import FrameDecoder, FrameProtocol, Opcode, RsvBits

from ._errors import CloseCode

#: RFC 6455 section 5.5.
MAX_CONTROL_PAYLOAD = 125

#: What a frame of a fragmented message counts at the least, so that empty ones run out too.
MIN_FRAGMENT_CHARGE = 64


class Role(enum.Enum):
    """Which end of the connection this is: a client masks what it sends, a server does not."""

    CLIENT = ConnectionType.CLIENT
    SERVER = ConnectionType.SERVER


# ---------------------------------------------------------------------------
# Events. A whole message is not wrapped: it is just a `str` or a `bytes`.
# ---------------------------------------------------------------------------


class Fragment(NamedTuple):
    """A piece of a message that did not arrive in one frame and one read. May be empty."""

    data: str | bytes
    final: bool


class Ping(NamedTuple):
    """The peer asks for a pong with this payload (RFC 6455 section 5.5.2)."""

    payload: bytes


class Pong(NamedTuple):
    """An answer to one of our pings, or an unsolicited pong (RFC 6455 section 5.5.3)."""

    payload: bytes


class Close(NamedTuple):
    """The peer's Close frame; 1005 if it carried no code (RFC 6455 section 7.1.5)."""

    code: int
    reason: str


class Violation(NamedTuple):
    """The peer broke the protocol or a limit: the connection is to be failed with this code."""

    code: int
    reason: str


Event: TypeAlias = str | bytes | Fragment | Ping | Pong | Close | Violation


def show_event(event: Event) -> str:
    """An event in a log line: what it is, and the beginning of what it holds."""
    if isinstance(event, Fragment):
        last = ", the last" if event.final else ""
        return f"fragment {_shorten(event.data)}{last}"
    if isinstance(event, (Ping, Pong)):
        return f"{type(event).__name__} {event.payload!r}"
    if isinstance(event, (Close, Violation)):
        return f"{type(event).__name__} {event.code} {event.reason!r}"
    return f"{'text' if isinstance(event, str) else 'binary'} {_shorten(event)}"


def _shorten(data: str | bytes) -> str:
    return f"{data[:40]!r}{'…' if len(data) > 40 else ''} ({len(data)} long)"


_MESSAGE_TOO_BIG = frame_protocol.CloseReason.MESSAGE_TOO_BIG
_NO_RSV = RsvBits(False, False, False)
_BAD_GATEWAY = struct.pack("!H", CloseCode.BAD_GATEWAY)
_TRY_AGAIN_LATER = struct.pack("!H", CloseCode.TRY_AGAIN_LATER)


class Wire:
    """One open connection's two directions of frames.

    Args:
        role: which end this is.
        max_message_size: in bytes of payload; see `ConnectionOptions.max_message_size`.
    """

    __slots__ = ("_assembling", "_guard", "_wsproto", "end", "role")

    role: Role
    end: Close | Violation | None
    """The last event, once it came."""

    def __init__(self, role: Role, *, max_message_size: float) -> None:
        self.role = role
        self._guard = _Guard(max_message_size)
        self._wsproto = Connection(role.value, [self._guard])
        self._assembling = False
        self.end = None

    # Receiving…

    def receive(self, received: bytes) -> Sequence[Event]:
        """Take bytes as they come from the network and give what they complete."""
        events: list[Event] = []
        if self.end is not None:
            return events
        self._wsproto.receive_data(received)
        for event in self._wsproto.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                # wsproto gives immutable data, though its type says that it could be a bytearray.
                data = event.data if isinstance(event.data, str) else bytes(event.data)
                final = event.message_finished
                events.append(Fragment(data, final) if self._assembling or not final else data)
                self._assembling = not final
            elif isinstance(event, WsprotoPing):
                events.append(Ping(bytes(event.payload)))
            elif isinstance(event, WsprotoPong):
                events.append(Pong(bytes(event.payload)))
            else:
                assert isinstance(event, CloseConnection)
                self.end = self._last_event(event)
                events.append(self.end)
        return events

    def _last_event(self, event: CloseConnection) -> Close | Violation:
        state = self._wsproto.state
        if state is ConnectionState.REMOTE_CLOSING or state is ConnectionState.CLOSED:
            code = CloseCode.BAD_GATEWAY if self._guard.bad_gateway else int(event.code)
            return Close(code, event.reason or "")
        # wsproto's words for these two depend on how the bytes were cut up.
        if event.code == CloseCode.MESSAGE_TOO_BIG:
            return Violation(event.code, f"message over {self._guard.limit} bytes")
        if event.code == CloseCode.INVALID_PAYLOAD:
            return Violation(event.code, "text that is not UTF-8")
        return Violation(int(event.code), event.reason or "")

    # Sending…

    @property
    def may_send(self) -> bool:
        """Whether frames other than Close may be sent: no Close frame went either way."""
        return self._wsproto.state is ConnectionState.OPEN

    @property
    def may_close(self) -> bool:
        """Whether a Close frame may be sent: none was yet."""
        state = self._wsproto.state
        return state is ConnectionState.OPEN or state is ConnectionState.REMOTE_CLOSING

    def message(self, data: str | bytes, *, final: bool = True) -> bytes:
        """The frame of a whole message, or of a fragment of one.

        The first fragment decides between text and binary, and the ones after it must agree.
        """
        if isinstance(data, str):
            return self._wsproto.send(TextMessage(data=data, message_finished=final))
        return self._wsproto.send(BytesMessage(data=data, message_finished=final))

    def ping(self, payload: bytes) -> bytes:
        return self._wsproto.send(WsprotoPing(payload=payload))

    def pong(self, payload: bytes) -> bytes:
        return self._wsproto.send(WsprotoPong(payload=payload))

    def close(self, code: int, reason: str) -> bytes:
        """The frame that closes; 1005 stands for one without a code. No frame may follow it."""
        if code == CloseCode.NO_STATUS_RECEIVED:
            code = frame_protocol.CloseReason.NO_STATUS_RCVD
            return self._wsproto.send(CloseConnection(code=code))
        return self._wsproto.send(CloseConnection(code=code, reason=reason))


class _Guard(Extension):
    """Sees every frame before wsproto takes it, through wsproto's own door for extensions."""

    name = "guard"

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.bad_gateway = False
        #: For the frames of this message that are complete, and for the one that is arriving.
        self._charged = 0
        self._charge = 0
        self._opcode = Opcode.CONTINUATION

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # pragma: no cover - never offered to a peer: it changes no byte

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> frame_protocol.CloseReason | RsvBits:
        self._opcode = opcode
        if opcode.iscontrol():
            return _NO_RSV
        # wsproto shows a header again when a read ended inside its masking key, so nothing is added
        # up before the frame is complete. Whether FIN is set is not told here, so the first frame
        # is charged what it holds and only those after it the minimum.
        self._charge = payload_length
        if opcode is Opcode.CONTINUATION:
            self._charge = max(payload_length, MIN_FRAGMENT_CHARGE)
        return _MESSAGE_TOO_BIG if self._charged + self._charge > self.limit else _NO_RSV

    def frame_inbound_complete(self, proto: FrameDecoder | FrameProtocol, fin: bool) -> None:  # noqa: FBT001 - wsproto's signature
        if not self._opcode.iscontrol():
            self._charged = 0 if fin else self._charged + self._charge

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | frame_protocol.CloseReason:
        # wsproto refuses 1014, which IANA has registered since, so it is shown 1013 in its place.
        # A control frame's payload always comes in one piece.
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY:
            self.bad_gateway = True
            return _TRY_AGAIN_LATER + data[2:]
        return data
