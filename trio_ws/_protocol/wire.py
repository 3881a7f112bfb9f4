"""Frames: bytes to messages and control events, and back. No I/O, no trio, no clock.

This module owns the two ways that a frame can take. The short way is for *plain* frames (see
`frames`), which are nearly all: they are taken apart right here, whole ones many at a time, and
those that arrive in pieces piece by piece. So are pings, pongs, proper Close frames and compressed
messages that come in one frame and one read. Every other frame is handed to wsproto, which judges
the protocol (RFC 6455): fragments, and all that is not as it should be. What a stream of bytes
means does not depend on the way, as wsproto sees every frame that has an influence on others.

With `judge` it owns the seam to wsproto and everything that has to be added to it:

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

from collections.abc import Generator, Iterator
from functools import partial
from math import inf

from wsproto.connection import Connection, ConnectionState
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event as WsprotoEvent,
    Ping as WsprotoPing,
    Pong as WsprotoPong,
    TextMessage,
)

from .._errors import CloseCode
from .arriving import ArrivingFrame
from .codec import Codec
from .deflate import Agreement, Deflate, is_compressible
from .events import (
    CLOSE_CODE,
    NOT_UTF8,
    Close,
    Event,
    Fragment,
    Messages,
    Ping,
    Pong,
    Refused,
    Role,
    Violation,
    read_close,
)
from .frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    MASKED,
    MAX_HEAD,
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
    masked_frame,
    read_head,
    take_masked,
    take_unmasked,
)
from .judge import Guard
from .masking import mask, new_key
from .prepared import Prepared

#: RFC 6455 section 5.5.
MAX_CONTROL_PAYLOAD = 125


#: How many whole messages are decoded in one go, unless there is less room.
BATCH = 64

#: How many bytes wsproto is given in one go, at the most: where one message cannot become larger
#: than this by inflating, and where it can.
MAX_STEP = 2**20
INFLATING_STEP = 1024

#: From how many bytes on a frame's head and payload are written separately, rather than to copy
#: the payload once more only to have both in one piece.
LARGE = 16 * 1024


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
        self._arriving: ArrivingFrame | None = None

        # Made when there is something for them to do; see _judge and _codecs.
        self._wsproto: Connection | None = None
        self._guard: Guard | None = None
        self._codec: Codec | None = None
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
        self, frame: ArrivingFrame, data: bytes, position: int
    ) -> tuple[Fragment | Violation, int]:
        """Take what there is of a plain frame's payload."""
        stop = min(position + frame.left, len(data))
        try:
            fragment = frame.take(data, position, stop)
        except UnicodeDecodeError:
            self.end = NOT_UTF8
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
            self._arriving = ArrivingFrame(head, key, decode_text=self._decode_text)
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
        except Refused as exc:
            self.end = exc.violation
        except UnicodeDecodeError:
            self.end = NOT_UTF8
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
            known = self._head + data[position : position + MAX_HEAD]
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
            self._guard = Guard(self._limit, codecs)
            self._wsproto = Connection(self.role.value, [self._guard])
        return self._wsproto

    @property
    def _codecs(self) -> Codec:
        if self._codec is None:
            assert self._deflate is not None
            self._codec = Codec(*self._deflate, server=not self.masks)
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
            return NOT_UTF8
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
        head = make_head(first, len(payload), MASKED) + key
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
        return masked_frame(frame) if self.masks else frame

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
        return self._frame(CLOSE, CLOSE_CODE.pack(code) + text.encode())

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
