"""Frames: bytes to messages and control events, and back. No I/O, no trio, no clock.

This module owns the two ways that a frame can take. The short way is for *plain* frames (see
`_frames`), which are nearly all: they are taken apart right here, whole ones many at a time, and
those that arrive in pieces piece by piece. So are pings, pongs, proper Close frames and compressed
messages that come in one frame and one read. Every other frame is handed to wsproto, which judges
the protocol (RFC 6455): fragments, and all that is not as it should be. What a stream of bytes
means does not depend on the way, as wsproto sees every frame that has an influence on others.

It also owns the seam to wsproto and everything that has to be added to it:

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
event that a wire ever gives; the same bytes give the same messages, however they are cut up; and an
idle wire holds next to nothing, wsproto's objects included.
"""

from __future__ import annotations

import codecs
import enum
import struct
import zlib
from collections.abc import Generator, Iterator
from functools import partial
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

from .._errors import CloseCode, may_be_sent
from . import frames as _frames
from .deflate import (
    RESTART_CHARGE,
    SAMPLE_FROM,
    Agreement,
    Deflate,
    Deflater,
    Inflater,
    is_compressible,
)
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PLAIN,
    PONG,
    RSV1,
    SHORT_HEADS,
    TEXT,
    TWO_BYTES_LENGTH,
    Head,
    checked_utf8,
    make_head,
    make_masked_frame,
    read_head,
    take_masked,
    take_unmasked,
)
from .masking import mask, new_key

#: RFC 6455 section 5.5.
MAX_CONTROL_PAYLOAD = 125

#: What a frame of a fragmented message counts at least, so that even empty ones run out.
MIN_FRAGMENT_CHARGE = 64

#: How many whole messages are decoded in one go, unless there is less room.
BATCH = 64

#: How many bytes wsproto is given in one go, at the most: where one message cannot become larger
#: than this by inflating, and where it can.
MAX_STEP = 2**20
INFLATING_STEP = 1024

#: From how many bytes on a frame's head and payload are written separately, rather than to copy
#: the payload once more only to have both in one piece.
LARGE = 16 * 1024


class Role(enum.Enum):
    """Which end of the connection this is: a client masks what it sends, a server does not."""

    CLIENT = ConnectionType.CLIENT
    SERVER = ConnectionType.SERVER


# ---------------------------------------------------------------------------
# Events
# ---------------------------------------------------------------------------

#: Messages that came in one frame each, in order.
Messages: TypeAlias = list[str | bytes]


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


Event: TypeAlias = Messages | Fragment | Ping | Pong | Close | Violation


def show_event(event: Event | str | bytes) -> str:
    """An event in a log line: what it is, and the beginning of what it holds."""
    if isinstance(event, list):
        return "; ".join(map(show_event, event))
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


class _Refused(Exception):
    """What a violation is called on its way up to where it becomes an event."""

    def __init__(self, code: CloseCode, why: str) -> None:
        super().__init__(why)
        self.violation = Violation(int(code), why)


# Said in our words, because wsproto's depend on how the bytes were cut up.
_NOT_UTF8 = Violation(int(CloseCode.INVALID_PAYLOAD), "text that is not UTF-8")


# ---------------------------------------------------------------------------
# The wire
# ---------------------------------------------------------------------------


class Wire:
    """One open connection's two directions of frames.

    Args:
        role: which end this is.
        max_message_size: in bytes of payload; see `ConnectionOptions.max_message_size`.
        deflate: our settings of permessage-deflate and what was agreed on; `None` without it.
        batch: how many messages to decode in one go, at the most.
        decode_text: see `ConnectionOptions.decode_text`.
    """

    __slots__ = (
        "_arriving",
        "_batch",
        "_close_sent",
        "_codec",
        "_decode_text",
        "_deflate",
        "_deflates",
        "_fragments_deflated",
        "_guard",
        "_head",
        "_limit",
        "_owed",
        "_rest",
        "_step",
        "_take_messages",
        "_threshold",
        "_wsproto",
        "end",
        "masks",
        "role",
    )

    role: Role
    masks: bool
    """Whether this end masks what it sends."""
    end: Close | Violation | None
    """The last event, once it came."""

    def __init__(
        self,
        role: Role,
        *,
        max_message_size: float,
        deflate: tuple[Deflate, Agreement] | None = None,
        batch: int = BATCH,
        decode_text: bool = True,
    ) -> None:
        self.role = role
        self.masks = role is Role.CLIENT
        self.end = None
        self._close_sent = False
        self._limit = max_message_size
        self._batch = batch
        self._deflate = deflate
        #: Whether what goes out may be compressed.
        self._deflates = False
        self._threshold: float = inf
        if deflate is not None and deflate[1].allows_deflating(server=not self.masks):
            self._deflates = True
            self._threshold = deflate[0].threshold
        #: Whether the message that goes in fragments is compressed; `None` where none does.
        self._fragments_deflated: bool | None = None
        self._take_messages = take_unmasked if self.masks else take_masked
        self._decode_text = decode_text
        if not decode_text:
            self._take_messages = partial(self._take_messages, decode_text=False)
        #: The beginning of a frame's head, where a read ended within one.
        self._rest = b""
        self._arriving: _ArrivingFrame | None = None

        # Made when there is something for them to do; see _judge and _codecs.
        self._wsproto: Connection | None = None
        self._guard: _Guard | None = None
        self._codec: _Codec | None = None
        #: How much of the frame that wsproto is reading it has yet to be given, or, before its
        #: length is known, what wsproto was given of its head.
        self._owed = 0
        self._head = b""
        # Where a message may be as large as it likes, at least not much of it is inflated in one
        # go: DEFLATE makes a thousand bytes and more of one.
        unbounded = deflate is not None and max_message_size > MAX_STEP
        self._step = INFLATING_STEP if unbounded else MAX_STEP

    # Receiving…

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes as they come from the network and give what they complete, bit by bit.

        They are decoded only as far as the iteration goes, so that whoever has had enough can wait:
        a few bytes may inflate to many messages. It must be finished before the next call.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        position = 0
        while position < len(data) and self.end is None:
            if self._arriving is not None:
                event, position = self._take_piece(self._arriving, data, position)
                yield event
            elif self._is_judging:
                position = yield from self._judge(data, position)
            else:
                messages, position = self._take_messages(data, position, self._limit, self._batch)
                if messages:
                    yield messages
                else:
                    position = yield from self._take_other(data, position)

    def discard(self) -> None:
        """Inflate nothing more, because nobody will get it: only the peer's Close is waited for.

        A peer that goes on sending could otherwise have a megabyte made of each kilobyte.
        """
        if self._deflate is not None:
            self._codecs.discard()

    @property
    def bytes_inflated(self) -> int:
        """How many bytes inflating has given so far: the work that `receive` does beyond frames."""
        return self._codec.plain_received if self._codec is not None else 0

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing is there of what comes next."""
        return not self._rest and self._arriving is None and not self._is_judging

    def receive_messages(self, data: bytes) -> tuple[Messages, int]:
        """The short way alone, where the wire `is_between_messages`: it costs half as much.

        Returns:
            The messages that `data` begins with, at the most as many as are decoded in one go, and
            where what follows them begins: that is for `receive`.
        """
        return self._take_messages(data, 0, self._limit, self._batch)

    def _take_piece(
        self, frame: _ArrivingFrame, data: bytes, position: int
    ) -> tuple[Fragment | Violation, int]:
        """Take what there is of a plain frame's payload."""
        stop = min(position + frame.left, len(data))
        try:
            fragment = frame.take(data, position, stop)
        except UnicodeDecodeError:
            self.end = _NOT_UTF8
            return self.end, len(data)
        if fragment.final:
            self._arriving = None
        return fragment, stop

    def _take_other(self, data: bytes, position: int) -> Generator[Event, None, int]:
        """Take a frame that is not plain, or not all here."""
        first = data[position]
        head = read_head(data, position)
        if head is None:
            if first not in PLAIN:
                return (yield from self._judge(data, position))
            self._rest = data[position:]
            return len(data)
        if head.masked is self.masks or not head.right_length:
            return (yield from self._judge(data, position))
        plain = first in PLAIN and head.length <= self._limit
        start = position + head.size
        stop = start + head.length
        if plain and start > len(data):
            self._rest = data[position:]
            return len(data)
        key = data[start - 4 : start] if head.masked else b""
        if plain:
            self._arriving = _ArrivingFrame(head, key, decode_text=self._decode_text)
            return start
        if stop <= len(data):
            event = self._take_whole(head, key, data[start:stop])
            if event is not None:
                yield event
                return stop
        return (yield from self._judge(data, position))

    def _take_whole(self, head: Head, key: bytes, payload: bytes) -> Event | None:
        """Take a control frame or a compressed message that is here in one piece."""
        is_control = head.first in (PING, PONG, CLOSE) and head.length <= MAX_CONTROL_PAYLOAD
        is_compressed = head.first in (TEXT | RSV1, BINARY | RSV1) and self._inflates_at_once
        if not is_control and not is_compressed:
            return None
        if key:
            payload = bytes(mask(payload, 0, len(payload), key))
        if head.first == CLOSE:
            self.end = close = read_close(payload)
            return close
        if is_control:
            return Ping(payload) if head.first == PING else Pong(payload)
        try:
            message = self._codecs.inflate_whole(payload, self._limit)
            if head.first == TEXT | RSV1:
                return [message.decode() if self._decode_text else checked_utf8(message)]
            return [message]
        except _Refused as exc:
            self.end = exc.violation
        except UnicodeDecodeError:
            self.end = _NOT_UTF8
        return self.end

    @property
    def _inflates_at_once(self) -> bool:
        return self._deflate is not None and self._step != INFLATING_STEP

    # Receiving, with wsproto…

    @property
    def _is_judging(self) -> bool:
        """Whether wsproto is within a frame, or within a message."""
        return bool(self._owed or self._head) or (
            self._guard is not None and self._guard.within_message
        )

    def _judge(self, data: bytes, position: int) -> Generator[Event, None, int]:
        """Let wsproto read on, up to the end of a frame."""
        stop = len(data)
        if not self._owed:
            known = self._head + data[position : position + _frames.MAX_HEAD]
            head = read_head(known, 0)
            if head is None:
                self._head = known
            else:
                self._owed = head.size + head.length - len(self._head)
                self._head = b""
        if self._owed:
            stop = min(stop, position + self._owed, position + self._step)
            self._owed -= stop - position
        judge = self._judge_of_frames
        judge.receive_data(data[position:stop])
        yield from map(self._translate, judge.events())
        return stop

    @property
    def _judge_of_frames(self) -> Connection:
        if self._wsproto is None:
            codecs = self._codecs if self._deflate is not None else None
            self._guard = _Guard(self._limit, codecs)
            self._wsproto = Connection(self.role.value, [self._guard])
        return self._wsproto

    @property
    def _codecs(self) -> _Codec:
        if self._codec is None:
            assert self._deflate is not None
            self._codec = _Codec(*self._deflate, server=not self.masks)
        return self._codec

    def _translate(self, event: WsprotoEvent) -> Event:
        if isinstance(event, (TextMessage, BytesMessage)):
            # wsproto gives immutable data, though its type says that it could be a bytearray.
            data = event.data if isinstance(event.data, str) else bytes(event.data)
            if isinstance(data, str) and not self._decode_text:
                data = data.encode()
            return Fragment(data, event.message_finished)
        if isinstance(event, WsprotoPing):
            return Ping(bytes(event.payload))
        if isinstance(event, WsprotoPong):
            return Pong(bytes(event.payload))
        assert isinstance(event, CloseConnection)
        self.end = self._last_event(event)
        return self.end

    def _last_event(self, event: CloseConnection) -> Close | Violation:
        assert self._wsproto is not None
        assert self._guard is not None
        state = self._wsproto.state
        if state is ConnectionState.REMOTE_CLOSING:
            code = CloseCode.BAD_GATEWAY if self._guard.bad_gateway else int(event.code)
            return Close(code, event.reason or "")
        if self._guard.refusal is not None:
            return self._guard.refusal
        if event.code == CloseCode.INVALID_PAYLOAD:
            return _NOT_UTF8
        return Violation(int(event.code), event.reason or "")

    # Sending…

    @property
    def compresses_from(self) -> float:
        """From what length on a message is compressed; `math.inf` where that was not agreed on."""
        return self._threshold

    @property
    def may_send(self) -> bool:
        """Whether frames other than Close may be sent: no Close frame went either way."""
        return self.may_close and not isinstance(self.end, Close)

    @property
    def may_close(self) -> bool:
        """Whether a Close frame may be sent: none was yet."""
        return not self._close_sent

    def message(self, data: str | bytes, *, compress: bool | None = None) -> bytes:
        """The frame of a whole message.

        Args:
            data: the message.
            compress: whether to compress it, where that was agreed on; `None` leaves it to the
                threshold.
        """
        # Its own copy of `_encode` and `make_head`: calling them would cost half as much again.
        first, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        if compress is None:
            compress = len(payload) >= self._threshold and self._codecs.pays(payload)
        if compress and self._deflates:
            first, payload = first | RSV1, self._codecs.deflate(payload, final=True)
        if self.masks:
            return make_masked_frame(first, payload)
        length = len(payload)
        if length < TWO_BYTES_LENGTH:
            return SHORT_HEADS[first][length] + payload
        return make_head(first, length) + payload

    def large_message(
        self, data: str | bytes, *, compress: bool | None = None
    ) -> tuple[bytes, bytes | bytearray]:
        """`message` for `LARGE` ones: head and payload, to be written one after the other."""
        first, payload = self._encode(data, compress=compress)
        if not self.masks:
            return make_head(first, len(payload)), payload
        key = new_key()
        head = make_head(first, len(payload), _frames.MASKED) + key
        return head, mask(payload, 0, len(payload), key)

    def _encode(self, data: str | bytes, *, compress: bool | None) -> tuple[int, bytes]:
        """The first byte and the payload."""
        first, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        if compress is None:
            compress = len(payload) >= self._threshold and self._codecs.pays(payload)
        if compress and self._deflates:
            return first | RSV1, self._codecs.deflate(payload, final=True)
        return first, payload

    def shared(self, message: Prepared) -> bytes:
        """The frame of a message that other wires also send.

        It refers to nothing that this wire sent before. So it may be thrown away rather than sent,
        and another may go in its place.
        """
        frame = message.plain
        if self._deflates and message.weight >= self._threshold:
            frame = self._codecs.share(message)
        return _masked(frame) if self.masks else frame

    @property
    def shares_plain_below(self) -> float:
        """For what `weight` the frame of `shared` is `Prepared.plain`."""
        return -inf if self.masks else self._threshold

    def restart_compression(self) -> None:
        """What is sent from now on refers to nothing before it."""
        if self._codec is not None:
            self._codec.restart()

    def fragment(self, data: str | bytes, *, final: bool, compress: bool | None = None) -> bytes:
        """The frame of a part of a message; all of its parts are text, or all are binary.

        Args:
            data: the part; may be empty.
            final: whether the message ends with it.
            compress: as for `message`; the first part's word counts. How long the message will be
                is not known, so `None` means yes, unless the first part is of a kind that does not
                get smaller.
        """
        payload = data.encode() if isinstance(data, str) else data
        first = CONTINUATION
        if self._fragments_deflated is None:
            first = TEXT if isinstance(data, str) else BINARY
            if compress is None:
                compress = is_compressible(payload)
            self._fragments_deflated = compress and self._deflates
            if self._fragments_deflated:  # only the first is marked (RFC 7692 section 6)
                first |= RSV1
        if self._fragments_deflated:
            payload = self._codecs.deflate(payload, final=final)
        if final:
            self._fragments_deflated = None
        else:
            first &= ~FIN
        return self._frame(first, payload)

    def ping(self, payload: bytes) -> bytes:
        return self._frame(PING, payload)

    def pong(self, payload: bytes) -> bytes:
        return self._frame(PONG, payload)

    def _frame(self, first: int, payload: bytes) -> bytes:
        if self.masks:
            return make_masked_frame(first, payload)
        return make_head(first, len(payload)) + payload

    def close(self, code: int, reason: str) -> bytes:
        """The frame that closes; 1005 stands for one without a code. No frame may follow it.

        A reason that is too long is cut.
        """
        self._close_sent = True
        if code == CloseCode.NO_STATUS_RECEIVED:
            return self._frame(CLOSE, b"")
        text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
        return self._frame(CLOSE, _code.pack(code) + text.encode())

    @property
    def compression_sent(self) -> float | None:
        """How many times smaller compressing made what it was used for; `None` before that."""
        codec = self._codec
        return codec.plain_sent / codec.deflated_sent if codec and codec.deflated_sent else None

    @property
    def compression_received(self) -> float | None:
        """The same of what the peer compressed."""
        codec = self._codec
        if codec is None or not codec.deflated_received:
            return None
        return codec.plain_received / codec.deflated_received


def read_close(payload: bytes) -> Close | None:
    """What a Close frame says (RFC 6455 section 5.5.1); `None` for one that nobody may send."""
    if not payload:
        return Close(CloseCode.NO_STATUS_RECEIVED, "")
    try:
        (code,) = _code.unpack_from(payload)
        return Close(code, payload[2:].decode()) if may_be_sent(code) else None
    except (struct.error, UnicodeDecodeError):
        return None


_code = struct.Struct("!H")


class Prepared:
    """A message for many wires: each form of it is made once, when the first of them needs it.

    Args:
        data: the message.
        compress: whether to compress it, where that was agreed on; `None` leaves it to each wire's
            threshold, unless it is large and of a kind that does not get smaller.

    Raises:
        UnicodeEncodeError: a `str` with lone surrogates.
    """

    __slots__ = ("_deflated", "_start", "data", "plain", "weight")

    def __init__(self, data: str | bytes, *, compress: bool | None = None) -> None:
        first, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        self.data: str | bytes = data
        #: The whole frame, neither compressed nor masked.
        self.plain: bytes = make_head(first, len(payload)) + payload
        self._start = len(self.plain) - len(payload)
        #: What is held against a threshold.
        self.weight: float = len(payload)
        if compress is not None:
            self.weight = inf if compress else -1
        elif self.weight >= SAMPLE_FROM and not is_compressible(payload):
            self.weight = -1
        self._deflated: dict[tuple[int, int, int], bytes] | None = None

    @property
    def bytes_compressed(self) -> int:
        """How many bytes compressing took in, over all forms."""
        return len(self._deflated or ()) * (len(self.plain) - self._start)

    def deflated(self, deflater: Deflater) -> bytes:
        """The whole frame as `deflater` makes it, beginning with this message; not masked."""
        if self._deflated is None:
            self._deflated = {}
        frame = self._deflated.get(deflater.parameters)
        if frame is None:
            payload = deflater.deflate(self.plain[self._start :], final=True)
            frame = make_head(self.plain[0] | RSV1, len(payload)) + payload
            self._deflated[deflater.parameters] = frame
        return frame


def _masked(frame: bytes) -> bytes:
    """The same frame as a client sends it."""
    head = read_head(frame, 0)
    assert head is not None
    return make_masked_frame(head.first, frame[head.size :])


class _ArrivingFrame:
    """A plain frame of which a part is still to come."""

    __slots__ = ("_begun_character", "_decode_text", "_key", "left")

    def __init__(self, head: Head, key: bytes, *, decode_text: bool) -> None:
        #: How many bytes of payload are still to come.
        self.left = head.length
        self._key = key
        #: Of a text, the bytes at the end that begin a character and do not complete it.
        self._begun_character = b"" if head.first == TEXT else None
        self._decode_text = decode_text

    def take(self, data: bytes, start: int, stop: int) -> Fragment:
        """The next piece of the payload, as what it means.

        Raises:
            UnicodeDecodeError: it belongs to a text, and cannot become UTF-8 any more.
        """
        self.left -= stop - start
        final = not self.left
        piece: bytes | bytearray = data[start:stop]
        if self._key:
            piece = mask(data, start, stop, self._key)
            turn = (stop - start) % 4
            self._key = self._key[turn:] + self._key[:turn]
        if self._begun_character is None:
            return Fragment(bytes(piece), final)
        if self._begun_character:
            piece = self._begun_character + piece
        text, read = codecs.utf_8_decode(piece, "strict", final)
        self._begun_character = bytes(piece[read:])
        if _is_half_surrogate(self._begun_character):
            raise UnicodeDecodeError("utf-8", piece, read, len(piece), "half a surrogate")
        return Fragment(text if self._decode_text else bytes(piece[:read]), final)


def _is_half_surrogate(end: bytes) -> bool:
    """Whether text ends in two of a surrogate's three bytes, which nothing makes UTF-8 any more.

    Python's decoder waits for the third. Whatever else cannot become UTF-8 it refuses at once.
    """
    return end[-2:-1] == b"\xed" and end[-1] >= 0xA0


class _Codec:
    """permessage-deflate in both directions, and what became of what went through it."""

    __slots__ = (
        "_deflater",
        "_inflater",
        "deflated_received",
        "deflated_sent",
        "plain_received",
        "plain_sent",
    )

    _inflater: Inflater | None
    """`None` when nobody will get any more."""

    def __init__(self, settings: Deflate, agreement: Agreement, *, server: bool) -> None:
        self._inflater, self._deflater = agreement.codecs(settings, server=server)
        self.plain_sent = self.deflated_sent = self.plain_received = self.deflated_received = 0

    def inflate_whole(self, data: bytes, limit: float) -> bytes:
        """A message of one frame. Raises as `inflate` does."""
        message = self.inflate(data, limit)
        return message + self.inflate(b"", limit, already=len(message), final=True)

    def inflate(
        self, data: bytes, limit: float, *, already: float = 0, final: bool = False
    ) -> bytes:
        """The next part of a message, or what is left of it after the last.

        Args:
            data: the payload of a frame, or a piece of it.
            limit: of the message.
            already: how much of that is used up.
            final: nothing more comes.

        Raises:
            _Refused: it is not DEFLATE, or more than `limit`.
        """
        if self._inflater is None:
            return b""
        room = limit - already - RESTART_CHARGE * self._inflater.restarts
        self.deflated_received += len(data)
        try:
            plain = self._inflater.finish(room) if final else self._inflater.inflate(data, room)
        except zlib.error as exc:
            raise _Refused(CloseCode.INVALID_PAYLOAD, "data that is not DEFLATE") from exc
        if plain is None:
            raise _too_big(limit)
        self.plain_received += len(plain)
        return plain

    def discard(self) -> None:
        self._inflater = None

    def pays(self, data: bytes) -> bool:
        return self._deflater.pays(data)

    def deflate(self, data: bytes, *, final: bool) -> bytes:
        deflated = self._deflater.deflate(data, final=final)
        self.plain_sent += len(data)
        self.deflated_sent += len(deflated)
        return deflated

    def share(self, message: Prepared) -> bytes:
        """The frame of a message that other connections also send.

        It must not refer to what only this peer got before it. Nor must what follows refer past
        it: the peer will have this message in its window (RFC 7692 section 7.2.2), a compressor
        that others share has not. So it stands alone, and the next message begins anew.
        """
        self.restart()
        frame = message.deflated(self._deflater)
        self.restart()
        self.plain_sent += len(message.plain)
        self.deflated_sent += len(frame)
        return frame

    def restart(self) -> None:
        self._deflater.restart()


def _too_big(limit: float) -> _Refused:
    return _Refused(CloseCode.MESSAGE_TOO_BIG, f"message over {limit} bytes")


class _Guard(Extension):
    """Sees every frame before wsproto takes it, through wsproto's own door for extensions.

    One account for each message that comes: what it holds so far, inflated, with each fragment
    counted at least `MIN_FRAGMENT_CHARGE`. wsproto shows a header again when a read ended inside
    its masking key, so that looking at a header must change nothing that looking again would not.
    """

    name = "guard"

    def __init__(self, limit: float, codec: _Codec | None) -> None:
        self._limit = limit
        self._codec = codec
        self.bad_gateway = False
        #: Why it refused a frame, if it did.
        self.refusal: Violation | None = None
        #: For the frames of this message that are complete, and for the one that is arriving.
        self._charged = 0
        self._charge = 0
        self._opcode = Opcode.CONTINUATION
        #: Whether the message that comes is text, and the last two bytes of it so far.
        self._text = False
        self._end = b""
        #: Whether a message has begun to come, and not ended yet.
        self.within_message = False
        #: Whether the message that comes is compressed.
        self._inflating = False

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
        if first is self.within_message:
            # wsproto would see it, but only after the payload was inflated.
            return self._refuse(_OUT_OF_SEQUENCE)
        self._charge = payload_length if first else max(payload_length, MIN_FRAGMENT_CHARGE)
        if first:
            self._text, self._end = opcode is Opcode.TEXT, b""
            self._inflating = rsv.rsv1 and self._codec is not None
        if self._inflating:
            # What it will inflate to is not known yet; see frame_inbound_payload_data.
            self._charge = 0 if first else MIN_FRAGMENT_CHARGE
        if self._charged + self._charge > self._limit:
            return self._refuse(_too_big(self._limit))
        # Only the first frame of a message is marked as compressed (RFC 7692 section 6).
        return _RSV1 if self._inflating and first else _NO_RSV

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | frame_protocol.CloseReason:
        if self._opcode.iscontrol():
            return self._control_payload(data)
        plain = self._inflate(data, final=False) if self._inflating else data
        if self._text and not isinstance(plain, frame_protocol.CloseReason):
            self._end = (self._end + plain[-2:])[-2:]
            if _is_half_surrogate(self._end):
                return self._refuse(_Refused(CloseCode.INVALID_PAYLOAD, _NOT_UTF8.reason))
        return plain

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
        self.within_message = not fin
        return rest

    def _refuse(self, refused: _Refused) -> frame_protocol.CloseReason:
        self.refusal = refused.violation
        return frame_protocol.CloseReason(refused.violation.code)

    def _inflate(self, data: bytes, *, final: bool) -> bytes | frame_protocol.CloseReason:
        assert self._codec is not None
        already = self._charged + self._charge
        try:
            plain = self._codec.inflate(data, self._limit, already=already, final=final)
        except _Refused as exc:
            return self._refuse(exc)
        self._charged += len(plain)
        return plain

    def _control_payload(self, data: bytes) -> bytes:
        # wsproto refuses 1014, which IANA has registered since, so it is shown 1013 instead.
        # A control frame's payload always comes in one piece.
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY:
            self.bad_gateway = True
            return _TRY_AGAIN_LATER + data[2:]
        return data


_OUT_OF_SEQUENCE = _Refused(CloseCode.PROTOCOL_ERROR, "a data frame out of sequence")
_NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)
_RSV1 = RsvBits(rsv1=True, rsv2=False, rsv3=False)
_BAD_GATEWAY = _code.pack(CloseCode.BAD_GATEWAY)
_TRY_AGAIN_LATER = _code.pack(CloseCode.TRY_AGAIN_LATER)
