"""Frames: bytes to messages and control events, and back. No I/O, no trio, no clock.

This module owns the seam to wsproto, which judges the protocol (RFC 6455), and everything that has
to be added to it:

- limits, which wsproto does not have: an `Extension` sees each frame's header before any of its
  payload, and refuses a message that will be too large right there;
- permessage-deflate, which wsproto inflates without limit and lets control frames disturb: the same
  extension inflates, so that there is one account of how large a message has become;
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
import zlib
from collections.abc import Iterator
from math import inf
from typing import NamedTuple, TypeAlias

from wsproto import frame_protocol
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event as WsprotoEvent,
    Ping as WsprotoPing,
    Pong as WsprotoPong,
    TextMessage,
)
from wsproto.extensions import Extension
from wsproto.frame_protocol import FrameDecoder, FrameProtocol, Opcode, RsvBits

from ._deflate import RESTART_CHARGE, Agreement, Deflate, Deflater, Inflater
from ._errors import CloseCode

#: RFC 6455 section 5.5.
MAX_CONTROL_PAYLOAD = 125

#: What a frame of a fragmented message counts at the least, so that empty ones run out too.
MIN_FRAGMENT_CHARGE = 64


#: How many bytes are decoded in one go, at the most: where one message cannot become larger than
#: this by inflating, and where it can.
MAX_STEP = 2**20
INFLATING_STEP = 1024


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
_PROTOCOL_ERROR = frame_protocol.CloseReason.PROTOCOL_ERROR
_INVALID_PAYLOAD = frame_protocol.CloseReason.INVALID_FRAME_PAYLOAD_DATA
_NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)
_RSV1 = RsvBits(rsv1=True, rsv2=False, rsv3=False)
_BAD_GATEWAY = struct.pack("!H", CloseCode.BAD_GATEWAY)
_TRY_AGAIN_LATER = struct.pack("!H", CloseCode.TRY_AGAIN_LATER)


class Wire:
    """One open connection's two directions of frames.

    Args:
        role: which end this is.
        max_message_size: in bytes of payload; see `ConnectionOptions.max_message_size`.
        deflate: our settings of permessage-deflate and what was agreed on; `None` without it.
    """

    __slots__ = ("_assembling", "_guard", "_step", "_wsproto", "end", "role")

    role: Role
    end: Close | Violation | None
    """The last event, once it came."""

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: float,
        deflate: tuple[Deflate, Agreement] | None = None,
    ) -> None:
        self.role = role
        self._guard = _Guard(role, max_message_size, deflate)
        self._wsproto = Connection(role.value, [self._guard])
        self._assembling = False
        # Where a message may be as large as it likes, at least not much of it is inflated in one
        # go: DEFLATE makes a thousand bytes and more of one.
        unbounded = deflate is not None and max_message_size > MAX_STEP
        self._step = INFLATING_STEP if unbounded else MAX_STEP
        self.end = None

    # Receiving…

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes as they come from the network and give what they complete, one by one.

        They are decoded only as far as the iteration goes, so that whoever has had enough can wait:
        a few bytes may inflate to many messages. It must be finished before the next call.
        """
        for start in range(0, len(data), self._step):
            if self.end is not None:
                return
            self._wsproto.receive_data(data[start : start + self._step])
            yield from map(self._translate, self._wsproto.events())

    def _translate(self, event: WsprotoEvent) -> Event:
        if isinstance(event, (TextMessage, BytesMessage)):
            # wsproto gives immutable data, though its type says that it could be a bytearray.
            data = event.data if isinstance(event.data, str) else bytes(event.data)
            within, self._assembling = self._assembling, not event.message_finished
            return Fragment(data, event.message_finished) if within or self._assembling else data
        if isinstance(event, WsprotoPing):
            return Ping(bytes(event.payload))
        if isinstance(event, WsprotoPong):
            return Pong(bytes(event.payload))
        assert isinstance(event, CloseConnection)
        self.end = self._last_event(event)
        return self.end

    def _last_event(self, event: CloseConnection) -> Close | Violation:
        state = self._wsproto.state
        if state is ConnectionState.REMOTE_CLOSING or state is ConnectionState.CLOSED:
            code = CloseCode.BAD_GATEWAY if self._guard.bad_gateway else int(event.code)
            return Close(code, event.reason or "")
        if self._guard.refusal:
            return Violation(int(event.code), self._guard.refusal)
        if event.code == CloseCode.INVALID_PAYLOAD:
            # wsproto's words depend on how the bytes were cut up.
            return Violation(CloseCode.INVALID_PAYLOAD, "text that is not UTF-8")
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

    def message(
        self, data: str | bytes, *, final: bool = True, compress: bool | None = None
    ) -> bytes:
        """The frame of a whole message, or of a fragment of one.

        The first fragment decides between text and binary, and the ones after it must agree.

        Args:
            data: the message, or the part of it.
            final: whether it ends there.
            compress: whether to compress it, where that was agreed on; `None` leaves it to the
                threshold. The first fragment's word is the one that counts.
        """
        self._guard.prepare(len(data), final=final, compress=compress)
        if isinstance(data, str):
            return self._wsproto.send(TextMessage(data=data, message_finished=final))
        return self._wsproto.send(BytesMessage(data=data, message_finished=final))

    @property
    def compression_sent(self) -> float | None:
        """How many times smaller compressing made what it was used for; `None` before that."""
        guard = self._guard
        return guard.plain_sent / guard.deflated_sent if guard.deflated_sent else None

    @property
    def compression_received(self) -> float | None:
        """The same of what the peer compressed."""
        guard = self._guard
        return guard.plain_received / guard.deflated_received if guard.deflated_received else None

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
    """Sees every frame before wsproto takes it, through wsproto's own door for extensions.

    One account for each message that comes: what it holds so far, inflated, with each fragment
    counted at least `MIN_FRAGMENT_CHARGE`. wsproto shows a header again when a read ended inside
    its masking key, so that looking at a header must change nothing that looking again would not.
    """

    name = "guard"

    def __init__(self, role: Role, limit: float, deflate: tuple[Deflate, Agreement] | None) -> None:
        self.limit = limit
        self.bad_gateway = False
        #: Why it refused a frame, if it did.
        self.refusal = ""
        #: For the frames of this message that are complete, and for the one that is arriving.
        self._charged = 0
        self._charge = 0
        self._opcode = Opcode.CONTINUATION
        #: Whether a message has begun and not ended yet.
        self._receiving = False
        #: Whether the message that comes, and the one that goes, is compressed.
        self._inflating = False
        self._deflating = False
        self._within = False
        self._inflater: Inflater | None = None
        self._deflater: Deflater | None = None
        self._threshold: float = inf
        if deflate is not None:
            settings, agreement = deflate
            self._inflater, self._deflater = agreement.codecs(settings, server=role is Role.SERVER)
            self._threshold = settings.threshold
        self.plain_sent = self.deflated_sent = self.plain_received = self.deflated_received = 0

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # pragma: no cover - wsproto's handshake, which is not used, would ask

    # Receiving…

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
        # Whether FIN is set is not told here, so the first frame is charged what it holds and only
        # those after it the minimum.
        first = opcode is not Opcode.CONTINUATION
        if first is self._receiving:
            # wsproto would see it, too, but only after the payload was inflated.
            return self._refuse(_PROTOCOL_ERROR, "a data frame out of sequence")
        self._charge = payload_length if first else max(payload_length, MIN_FRAGMENT_CHARGE)
        if first:
            self._inflating = rsv.rsv1 and self._inflater is not None
        if self._inflating:
            # What it will inflate to is not known yet; see frame_inbound_payload_data.
            self._charge = 0 if first else MIN_FRAGMENT_CHARGE
        if self._charged + self._charge > self.limit:
            return self._too_big()
        # Only the first frame of a message is marked as compressed (RFC 7692 section 6).
        return _RSV1 if self._inflating and first else _NO_RSV

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | frame_protocol.CloseReason:
        if self._opcode.iscontrol():
            return self._control_payload(data)
        if not self._inflating:
            return data
        self.deflated_received += len(data)
        return self._inflate(data, final=False)

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,
        fin: bool,  # noqa: FBT001 - wsproto's signature
    ) -> bytes | frame_protocol.CloseReason | None:
        if self._opcode.iscontrol():
            return None
        self._charged += self._charge
        self._charge = 0
        rest = self._inflate(b"", final=True) if fin and self._inflating else None
        if fin:
            self._charged = 0
        self._receiving = not fin
        return rest

    def _too_big(self) -> frame_protocol.CloseReason:
        return self._refuse(_MESSAGE_TOO_BIG, f"message over {self.limit} bytes")

    def _refuse(self, code: frame_protocol.CloseReason, why: str) -> frame_protocol.CloseReason:
        self.refusal = why
        return code

    def _inflate(self, data: bytes, *, final: bool) -> bytes | frame_protocol.CloseReason:
        assert self._inflater is not None
        room = self.limit - self._charged - self._charge
        room -= RESTART_CHARGE * self._inflater.restarts
        try:
            plain = self._inflater.finish(room) if final else self._inflater.inflate(data, room)
        except zlib.error:
            return self._refuse(_INVALID_PAYLOAD, "data that is not DEFLATE")
        if plain is None:
            return self._too_big()
        self._charged += len(plain)
        self.plain_received += len(plain)
        return plain

    def _control_payload(self, data: bytes) -> bytes:
        # wsproto refuses 1014, which IANA has registered since, so it is shown 1013 in its place.
        # A control frame's payload always comes in one piece.
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY:
            self.bad_gateway = True
            return _TRY_AGAIN_LATER + data[2:]
        return data

    # Sending…

    def prepare(self, size: int, *, final: bool, compress: bool | None) -> None:
        """Say what the next data frame is a part of. The first of a message decides."""
        if not self._within:
            # Of a message in fragments nobody knows how long it will be: long, probably.
            wanted = (not final or size >= self._threshold) if compress is None else compress
            self._deflating = wanted and self._deflater is not None
        self._within = not final

    def frame_outbound(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        data: bytes,
        fin: bool,  # noqa: FBT001 - wsproto's signature
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol() or not self._deflating:
            return rsv, data
        assert self._deflater is not None
        deflated = self._deflater.deflate(data, final=fin)
        self.plain_sent += len(data)
        self.deflated_sent += len(deflated)
        return (rsv if opcode is Opcode.CONTINUATION else _RSV1), deflated
