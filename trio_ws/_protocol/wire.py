"""Frames: bytes to messages and control events, and back. No I/O, no trio, no clock.

This module owns the two ways that a frame can take. The short way is for frames whose meaning
depends on nothing but themselves, which are nearly all. They are taken apart here:

- *plain* frames (see `frames`): whole ones many at a time, others piece by piece as they come;
- pings, pongs, proper Close frames and compressed messages, where one read brought the whole frame.

wsproto gets every other frame and judges it (RFC 6455): fragments, and all that is not as it should
be. The two ways never disagree about what a stream of bytes means, because wsproto sees every frame
that has an influence on others.

With `judge` this module owns the seam to wsproto and what has to be added to it:

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
from .deflate import (
    IN_STEPS_FROM,
    Agreement,
    Deflate,
    StepwiseDeflation,
    in_bytes,
    is_compressible,
)
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
    take_masked_messages,
    take_unmasked_messages,
)
from .judge import Guard
from .masking import mask, new_key
from .prepared import Prepared
from .stepwise import PIECES_FROM, StepwiseMessage

#: RFC 6455 section 5.5.
MAX_CONTROL_PAYLOAD = 125

#: How many whole messages are decoded in one go, unless there is less room.
BATCH = 64

#: The most bytes that wsproto is given in one go: where one message cannot become larger than this
#: by inflating, and where it can.
MAX_STEP = 2**20
INFLATING_STEP = 1024

#: After so many bytes that compressed messages became, others get their turn.
INFLATED_AT_ONCE = 64 * 1024

#: From this many bytes on, a frame's head and payload are written separately. Putting them in one
#: piece would copy the payload once more.
LARGE = 16 * 1024

#: How a control frame begins, and how a compressed message that is not fragmented does. The frame
#: of a compressed message in fragments begins without FIN, so it is not among these.
_CONTROL = frozenset({PING, PONG, CLOSE})
_COMPRESSED = frozenset({TEXT | RSV1, BINARY | RSV1})

#: The bit that marks a control frame (RFC 6455 section 5.2).
_IS_CONTROL = 0x08
#: Where a data frame has none of these bits, it goes on with a message, and does not begin one.
_IS_FIRST = 0x07

#: A payload shorter than this takes less time than the frame around it.
SMALL_FRAGMENT = 1024


class Wire:
    """One open connection's two directions of frames.

    Args:
        role: which end this is.
        max_message_size: in bytes of payload; see `ConnectionOptions.max_message_size`.
        deflate: our settings of permessage-deflate and what was agreed on; `None` without it.
        batch: the most messages to decode in one go.
        decode_text: see `ConnectionOptions.decode_text`.
    """

    __slots__ = (
        "_arriving",
        "_batch",
        "_codec",
        "_decode_text",
        "_deflate",
        "_deflates",
        "_fragments_deflated",
        "_guard",
        "_head",
        "_limit",
        "_owed",
        "_refused",
        "_rest",
        "_step",
        "_step_of_fragments",
        "_take_messages",
        "_threshold",
        "_wsproto",
        "close_sent",
        "end",
        "head_bytes",
        "masks",
        "role",
        "small_fragments",
    )

    role: Role
    masks: bool
    """Whether this end masks what it sends."""
    end: Close | Violation | None
    """The last event, once it came. It is about the peer's direction alone. `may_close` says if
    this end has sent its Close frame, and the connection does the closing handshake."""
    close_sent: int | None
    """The code of the Close frame that this end sent; 1005 for one without a code."""
    head_bytes: int
    """How many bytes came as heads of frames whose messages come as `Fragment` events."""
    small_fragments: int
    """How many frames came that are shorter than `SMALL_FRAGMENT` and end no message."""

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
        self.close_sent = None
        self.head_bytes = self.small_fragments = 0
        self._limit = max_message_size
        self._batch = batch
        self._deflate = deflate
        #: Whether what goes out may be compressed. An agreement alone is not enough: it may allow
        #: a window that zlib cannot compress with.
        self._deflates = False
        self._threshold: float = inf
        if deflate is not None and deflate[1].allows_deflating(server=not self.masks):
            self._deflates = True
            self._threshold = deflate[0].threshold
        #: Whether the message that goes out in fragments is compressed; `None` between two.
        self._fragments_deflated: bool | None = None
        # What a client sends is masked, and what a server sends is not (RFC 6455 section 5.1).
        self._take_messages = take_unmasked_messages if self.masks else take_masked_messages
        self._decode_text = decode_text
        if not decode_text:
            self._take_messages = partial(self._take_messages, decode_text=False)
        #: The beginning of a plain frame's head, where a read ended within one.
        self._rest = b""
        #: Why the next frame is wrong: to know that, it was inflated, which cannot be done twice.
        self._refused: Violation | None = None
        #: The plain frame that is arriving, once its head is here.
        self._arriving: ArrivingFrame | None = None

        # Made for the first frame that needs them: 2 KiB that most connections never take.
        self._wsproto: Connection | None = None
        self._guard: Guard | None = None
        self._codec: Codec | None = None
        #: How much of the frame that wsproto is reading it has yet to be given. Before its length
        #: is known that is 0, and `_head` is what wsproto was given of its head.
        self._owed = 0
        self._head = b""
        # DEFLATE makes a thousand bytes and more of one. Where a message may be as large as it
        # likes, no limit stops that, so little of it is inflated in one go, and the receiver gets
        # to say that it has enough.
        unbounded = deflate is not None and max_message_size > MAX_STEP
        self._step = INFLATING_STEP if unbounded else MAX_STEP
        #: The same for the message in fragments that is arriving, which need not be compressed.
        self._step_of_fragments = MAX_STEP

    # Receiving…

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes as they come from the network and give what they complete, bit by bit.

        They are decoded only as far as the iteration goes, so that a caller who has had enough can
        wait: a few bytes may inflate to many messages. Finish the iteration before the next call:
        the bytes that it has not come to are kept nowhere else.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        position = 0
        # Nothing is read after a Close frame or a violation (RFC 6455 sections 5.5.1 and 7.1.7).
        # Once the peer has broken the protocol, the next frame may begin anywhere.
        while position < len(data) and self.end is None:
            if self._arriving is not None:
                event, position = self._take_piece(self._arriving, data, position)
                yield event
            elif self._is_judging:
                # Before the short way is tried: in the middle of wsproto's frame, payload would be
                # taken for a head. Between two fragments, a new message would pass that must not
                # be there (RFC 6455 section 5.4), and wsproto would not know of it.
                position = yield from self._judge(data, position)
            else:
                messages, position = self._take_whole_messages(data, position)
                if messages:
                    yield messages
                elif self._refused is not None:
                    self.end = self._refused
                    yield self.end
                else:
                    position = yield from self._take_other_frame(data, position)

    def discard(self) -> None:
        """Inflate nothing more, because nobody will get it: only the peer's Close is waited for.

        A peer that goes on sending could otherwise have a megabyte made of each kilobyte.
        """
        # Frames are still taken apart, and judged: the Close frame is somewhere among them.
        if self._deflate is not None:
            self._codecs.discard()

    @property
    def may_inflate(self) -> bool:
        """Whether messages may come compressed."""
        return self._deflate is not None

    @property
    def bytes_inflated(self) -> int:
        """How many bytes inflating has given so far: the work that `receive` does beyond frames."""
        return self._codec.plain_received if self._codec is not None else 0

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing of the next frame, or of a message in fragments, is here."""
        return not self._rest and self._arriving is None and not self._is_judging

    def receive_messages(self, data: bytes) -> tuple[Messages, int]:
        """Take the short way alone, at half the cost. The wire has to be `is_between_messages`.

        Returns:
            The messages that `data` begins with, no more than are decoded in one go, and where what
            follows them begins: that is for `receive`.
        """
        return self._take_whole_messages(data, 0)

    def receive_ping_or_pong(self, data: bytes, position: int) -> tuple[Ping | Pong | None, int]:
        """Take a ping or pong that is all here. The wire has to be `is_between_messages`.

        Returns:
            It, and where what follows it begins: that is for `receive`. Or `None` and `position`.
        """
        head = read_head(data, position)
        if head is not None and head.first in (PING, PONG):
            event = self._take_control_frame(head, data, position)
            assert not isinstance(event, Close)
            if event is not None:
                return event, position + head.size + head.length
        return None, position

    # Receiving, the short way…

    def _take_whole_messages(self, data: bytes, position: int) -> tuple[Messages, int]:
        """Take the messages that came in one frame each, from `position` on."""
        messages, position = self._take_messages(data, position, self._limit, self._batch)
        if position < len(data) and data[position] in _COMPRESSED and self._deflate is not None:
            return self._take_deflated_messages(data, position, messages)
        return messages, position

    def _take_deflated_messages(
        self, data: bytes, position: int, messages: Messages
    ) -> tuple[Messages, int]:
        """Go on where a message is compressed (RFC 7692 section 7.2.2).

        It stops like `take_masked_messages`, and as soon as much was inflated: a read may bring
        what becomes a thousand times as large.
        """
        codec = self._codecs
        enough = codec.plain_received + INFLATED_AT_ONCE
        while (
            position < len(data)
            and len(messages) < self._batch
            and codec.plain_received < enough
            and self._refused is None
        ):
            if data[position] not in _COMPRESSED:
                most = self._batch - len(messages)
                plain, position = self._take_messages(data, position, self._limit, most)
                if not plain:
                    break
                messages += plain
                continue
            head = read_head(data, position)
            if head is None or not self._is_right(head):
                break
            start = position + head.size
            stop = start + head.length
            if stop > len(data):
                break
            payload: bytes | bytearray = data[start:stop]
            if head.masked:
                payload = mask(data, start, stop, data[start - 4 : start])
            try:
                if head.length <= self._step:  # it cannot become large
                    message = codec.inflate_whole(payload, self._limit)
                else:
                    small = codec.inflate_small(payload, min(self._limit, MAX_STEP))
                    if small is None:
                        break  # it comes in pieces
                    message = small
                is_bytes = head.first == BINARY | RSV1
                messages.append(message if is_bytes else self._read_text(message))
            except Refused as exc:
                self._refused = exc.violation
            except UnicodeDecodeError:
                self._refused = NOT_UTF8
            else:
                position = stop
        return messages, position

    def _read_text(self, message: bytes) -> str | bytes:
        return message.decode() if self._decode_text else checked_utf8(message)

    def _take_other_frame(self, data: bytes, position: int) -> Generator[Event, None, int]:
        """Take a frame that is not plain, or not all here."""
        head = read_head(data, position)
        if self._begins_plain(data[position], head):
            return self._begin_plain_frame(head, data, position)
        if head is not None and head.first in _CONTROL:
            event = self._take_control_frame(head, data, position)
            if event is not None:
                yield event
                return position + head.size + head.length
        # From its first byte: wsproto could make nothing of the rest of a frame.
        return (yield from self._judge(data, position))

    def _begins_plain(self, first: int, head: Head | None) -> bool:
        """Whether it is a plain frame, as far as can be told before all of its head is here.

        No byte of any other frame is kept back: wsproto refuses a wrong one at the first byte that
        shows it. Otherwise a peer that stops there would be waited for, rather than told.
        """
        if first not in PLAIN:
            return False
        return head is None or (self._is_right(head) and head.length <= self._limit)

    def _is_right(self, head: Head) -> bool:
        """Whether it is masked as the peer's must be, its length in the shortest form (5.1, 5.2).

        The first byte is not looked at.
        """
        return head.masked is not self.masks and head.right_length

    def _begin_plain_frame(self, head: Head | None, data: bytes, position: int) -> int:
        """Wait for the payload of a plain frame, or for the rest of its head."""
        if head is None or position + head.size > len(data):
            self._rest = data[position:]
            return len(data)
        self.head_bytes += head.size
        start = position + head.size
        key = data[start - 4 : start] if head.masked else b""
        self._arriving = ArrivingFrame(head, key, decode_text=self._decode_text)
        return start

    def _take_piece(
        self, frame: ArrivingFrame, data: bytes, position: int
    ) -> tuple[Fragment | Violation, int]:
        """Take what there is of a plain frame's payload."""
        stop = min(position + frame.left, len(data))
        try:
            fragment = frame.take_piece(data, position, stop)
        except UnicodeDecodeError:
            self.end = NOT_UTF8
            return self.end, len(data)
        if fragment.final:
            self._arriving = None
        return fragment, stop

    @property
    def left_of_frame(self) -> int:
        """How many bytes of payload the plain frame that is arriving still lacks.

        0 where none is arriving, and where no more is looked at.
        """
        return self._arriving.left if self._arriving is not None and self.end is None else 0

    def receive_in_place(self, place: bytearray, size: int) -> Fragment | Violation:
        """`receive`, for bytes that are in a borrowed place: no more than are `left_of_frame`."""
        assert self._arriving is not None
        try:
            fragment = self._arriving.take_in_place(place, size)
        except UnicodeDecodeError:
            self.end = NOT_UTF8
            return self.end
        if fragment.final:
            self._arriving = None
        return fragment

    def _take_control_frame(
        self, head: Head, data: bytes, position: int
    ) -> Ping | Pong | Close | None:
        """Take a control frame, if it is all here; else give `None`.

        One that is wrong is also left to wsproto, which says what is wrong with it. So is one that
        arrives in pieces: wsproto keeps them.
        """
        start = position + head.size
        stop = start + head.length
        if stop > len(data) or head.length > MAX_CONTROL_PAYLOAD or not self._is_right(head):
            return None
        payload = data[start:stop]
        if head.masked:
            payload = bytes(mask(data, start, stop, data[start - 4 : start]))
        return self._control_event(head.first, payload)

    def _control_event(self, first: int, payload: bytes) -> Ping | Pong | Close | None:
        """What a control frame means; `None` for a Close frame that no peer may send."""
        if first == PING:
            return Ping(payload)
        if first == PONG:
            return Pong(payload)
        self.end = close = read_close(payload)
        return close

    # Receiving, with wsproto…

    @property
    def _is_judging(self) -> bool:
        """Whether wsproto is within a frame, or within a message."""
        return bool(self._owed or self._head) or (
            self._guard is not None and self._guard.within_message
        )

    def _judge(self, data: bytes, position: int) -> Generator[Event, None, int]:
        """Let wsproto read on, up to the end of a frame.

        No further: what follows may be a frame for the short way, and whatever wsproto is given
        stays in its buffer.
        """
        stop = self._stop_of_judge(data, position)
        wsproto = self._judge_of_frames
        wsproto.receive_data(data[position:stop])
        yield from map(self._translate, wsproto.events())
        return stop

    def _stop_of_judge(self, data: bytes, position: int) -> int:
        """Where the frame ends that wsproto reads; or where `data` does, or the next step."""
        if not self._owed:
            known = self._head + data[position : position + MAX_HEAD]
            head = read_head(known, 0)
            if head is None:
                # Not even the length is here, so no frame ends here. wsproto gets what there is all
                # the same: a frame that must be wrong is refused at its second byte.
                self._head = known
                return len(data)
            if not head.first & _IS_CONTROL:
                self.head_bytes += head.size
                self.small_fragments += head.first < FIN and head.length < SMALL_FRAGMENT
                if head.first & _IS_FIRST:  # it alone says that a message is compressed
                    self._step_of_fragments = self._step if head.first & RSV1 else MAX_STEP
            self._owed = head.size + head.length - len(self._head)
            self._head = b""
        stop = min(len(data), position + self._owed, position + self._step_of_fragments)
        self._owed -= stop - position
        return stop

    @property
    def _judge_of_frames(self) -> Connection:
        if self._wsproto is None:
            codecs = self._codecs if self._deflate is not None else None
            self._guard = Guard(self._limit, codecs)
            # The guard is the only extension: wsproto's permessage-deflate has no limit.
            self._wsproto = Connection(self.role.value, [self._guard])
        return self._wsproto

    @property
    def _codecs(self) -> Codec:
        # There is one codec for both ways in: with context takeover, a message that came the one
        # way may refer back to a message that came the other (RFC 7692 section 7.2.2).
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
        """Which of the two `event` stands for: wsproto gives the same for both."""
        assert self._wsproto is not None
        assert self._guard is not None
        # Only the state tells them apart. It is never LOCAL_CLOSING or CLOSED: wsproto sends
        # nothing here, so it does not know of our own Close frame.
        if self._wsproto.state is ConnectionState.REMOTE_CLOSING:
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
        """The length from which on messages are compressed; `math.inf` if this end never does."""
        return self._threshold

    @property
    def may_send(self) -> bool:
        """Whether frames other than Close may be sent: no Close frame went either way.

        A violation is no Close frame, though it is also an `end`: until ours is sent, a ping that
        came before it may still get its pong.
        """
        return self.may_close and not isinstance(self.end, Close)

    @property
    def may_close(self) -> bool:
        """Whether a Close frame may be sent: none was yet, and only one ever is (section 5.5.1)."""
        return self.close_sent is None

    def message(self, data: str | bytes, *, compress: bool | None = None) -> bytes:
        """The frame of a whole message.

        Args:
            data: the message.
            compress: whether to compress it, if that was agreed on; `None` leaves it to the
                threshold.
        """
        # `_encode` and `make_head` once more, in place: calling them would cost half as much again.
        first, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        if compress is None:
            # The threshold is infinite without an agreement, so that no codec is made.
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

    def may_take_steps(self, data: str | bytes, *, compress: bool | None) -> bool:
        """Whether `begin_steps` may begin to make this message in steps."""
        if compress is not False and self._deflates and len(data) >= IN_STEPS_FROM:
            return True
        # The payload of a server's binary message is the message: nothing has to be made.
        return len(data) >= PIECES_FROM and (self.masks or isinstance(data, str))

    def begin_steps(self, data: str | bytes, *, compress: bool | None) -> StepwiseMessage | None:
        """Begin to make a message in steps; `None` if it is small, or goes as it is.

        Nothing has changed for other messages before `message_of_steps`.

        Raises:
            UnicodeEncodeError: a `str` with lone surrogates.
        """
        deflation = None
        if len(data) >= IN_STEPS_FROM and self._deflates:
            if compress is None:
                compress = len(data) >= self._threshold and self._codecs.pays(data)
            deflation = self._codecs.begin_steps(data) if compress else None
        if deflation is None and not self.may_take_steps(data, compress=False):
            return None
        key = new_key() if self.masks else b""
        return StepwiseMessage(data, key=key, deflation=deflation)

    def begin_fragment_in_steps(
        self, data: str | bytes, *, compress: bool | None
    ) -> StepwiseDeflation | None:
        """The same for a part of a message, and for `fragment`."""
        if len(data) < IN_STEPS_FROM:
            return None
        compress = self._deflates_fragments(data, compress=compress)
        return self._codecs.begin_steps(data) if compress else None

    def message_of_steps(
        self, data: str | bytes, steps: StepwiseMessage
    ) -> tuple[bytes, list[bytes | bytearray]]:
        """The head and the pieces of the payload, once the last step is done."""
        first = TEXT if isinstance(data, str) else BINARY
        if steps.deflation is not None:
            first |= RSV1
            self._codecs.end_steps(steps.deflation)
        length = sum(map(len, steps.pieces))
        return make_head(first, length, MASKED if steps.key else 0) + steps.key, steps.pieces

    def _encode(self, data: str | bytes, *, compress: bool | None) -> tuple[int, bytes]:
        """The first byte and the payload."""
        first, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        if compress is None:
            compress = len(payload) >= self._threshold and self._codecs.pays(payload)
        if compress and self._deflates:
            return first | RSV1, self._codecs.deflate(payload, final=True)
        return first, payload

    def frame_of_prepared(self, message: Prepared) -> bytes:
        """The frame of a message that other wires also send.

        It refers to nothing that this wire sent before. So it may be thrown away rather than sent,
        and another may go in its place.
        """
        frame = message.plain
        if self._deflates and message.weight >= self._threshold:
            frame = self._codecs.deflate_prepared(message)
        # A client needs a fresh key for each frame (RFC 6455 section 5.3), so only servers can send
        # the same bytes to many.
        return masked_frame(frame) if self.masks else frame

    @property
    def prepared_is_plain_below(self) -> float:
        """The `weight` below which `frame_of_prepared` gives `Prepared.plain`, byte for byte."""
        return -inf if self.masks else self._threshold

    def restart_compression(self) -> None:
        """Let what is sent from now on refer to nothing before it."""
        if self._codec is not None:
            self._codec.restart()

    def fragment(
        self,
        data: str | bytes,
        *,
        final: bool,
        compress: bool | None = None,
        deflation: StepwiseDeflation | None = None,
    ) -> bytes:
        """The frame of a part of a message; all of its parts are text, or all are binary.

        Args:
            data: the part; may be empty.
            final: whether the message ends with it.
            compress: as for `message`; only the one given with the first part counts. How long
                the message will be is not known, so `None` means yes, unless the first part is of a
                kind that does not get smaller.
            deflation: what compressed the part, if that was done in steps.
        """
        # Text that cannot be encoded has to raise before anything changes.
        payload = in_bytes(data) if deflation is None else b""
        first = CONTINUATION
        if self._fragments_deflated is None:
            first = TEXT if isinstance(data, str) else BINARY
            self._fragments_deflated = self._deflates_fragments(data, compress=compress)
            if self._fragments_deflated:
                # Only the first frame of a message is marked as compressed (RFC 7692 section 6).
                first |= RSV1
        if deflation is not None:
            payload = bytes(self._codecs.end_steps(deflation))
        elif self._fragments_deflated:
            payload = self._codecs.deflate(payload, final=final)
        if final:
            self._fragments_deflated = None
        else:
            # Until the frame with FIN, only control frames may come between (RFC 6455 section 5.4):
            # the connection holds all other messages back.
            first &= ~FIN
        return self._frame(first, payload)

    def _deflates_fragments(self, data: str | bytes, *, compress: bool | None) -> bool:
        """Whether to compress the message in fragments that `data` is a part of."""
        if self._fragments_deflated is not None:
            return self._fragments_deflated
        if compress is None:
            compress = is_compressible(data)
        return compress and self._deflates

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
        self.close_sent = code
        if code == CloseCode.NO_STATUS_RECEIVED:  # which is never on the wire (section 7.4.1)
            return self._frame(CLOSE, b"")
        # The cut may fall within a character, and what is left has to be UTF-8 (section 5.5.1).
        text = reason.encode()[: MAX_CONTROL_PAYLOAD - 2].decode(errors="ignore")
        return self._frame(CLOSE, CLOSE_CODE.pack(code) + text.encode())

    @property
    def compression_sent(self) -> float | None:
        """How many times smaller compressing made what it was used for; `None` before that."""
        codec = self._codec
        return codec.plain_sent / codec.deflated_sent if codec and codec.deflated_sent else None

    @property
    def compression_received(self) -> float | None:
        """The same for what the peer compressed."""
        codec = self._codec
        if codec is None or not codec.deflated_received:
            return None
        return codec.plain_received / codec.deflated_received
