"""A second opinion: what a stream of frames means, read off RFC 6455 and RFC 7692.

Small, slow and plain, on purpose: the whole stream goes in, a list of events comes out. It shares
no code with the package, and imitates neither it nor wsproto. Where the RFCs leave something open
(which of two violations in one frame is reported, how early a frame that is still arriving is
refused) it says all that there is to say, in `Failure`, and `disagreement` has the rules by which a
decoder may differ.

The limits are those that the package documents: a message has at most so many bytes of payload,
inflated where it is compressed; every frame of it after the first counts as 64 bytes at least; in
a compressed message these 64 are added to what it inflates to, as they are for every DEFLATE
stream that ends within it (BFINAL=1).
"""

from __future__ import annotations

import codecs
import math
import re
import zlib
from dataclasses import dataclass, field
from typing import TypeAlias

CHARGE = 64


@dataclass(frozen=True)
class Control:
    """A ping or a pong."""

    kind: str
    payload: bytes


@dataclass(frozen=True)
class Closed:
    code: int
    reason: str


@dataclass(frozen=True)
class Failure:
    """The first frame that is not right: everything that is wrong with it, as far as it came."""

    wrong: frozenset[str]
    #: Not even one byte of its payload was there (of a payload that has bytes).
    header_only: bool = False
    #: Its header itself was cut off, so that it may become worse, or be refused later.
    partial_header: bool = False

    @property
    def codes(self) -> set[int]:
        return {CODES[what] for what in self.wrong}


#: What may be wrong, and the code that says so (RFC 6455 section 7.4.1).
CODES = {
    "opcode": 1002,  # 5.2: unknown
    "reserved bit": 1002,  # 5.2: MUST be 0 unless an extension defines it
    "mask": 1002,  # 5.1: a client masks, a server does not
    "fragmented control": 1002,  # 5.5
    "long control": 1002,  # 5.5: over 125 bytes
    "length": 1002,  # 5.2: not the minimal form, or over 63 bits
    "sequence": 1002,  # 5.4: a continuation of nothing, or a new message within another
    "close code": 1002,  # 5.5.1, 7.4
    "utf-8": 1007,  # 8.1
    "inflating": 1007,  # RFC 7692 leaves the code open; the data is not what it says it is
    "limit": 1009,
}

Event: TypeAlias = str | bytes | Control | Closed | Failure


@dataclass
class Header:
    """As much of a header as is there; `complete` up to the masking key."""

    fin: bool
    rsv: int
    opcode: int
    masked: bool | None = None
    length: int | None = None
    minimal: bool = True
    size: int = 0

    @property
    def control(self) -> bool:
        return self.opcode >= 8


@dataclass
class Message:
    """The message that is arriving."""

    text: bool
    compressed: bool
    plain: bytearray = field(default_factory=bytearray)
    counted: int = 0


class Context:
    """The peer's DEFLATE stream (RFC 7692 section 7.2.2), fed byte by byte."""

    def __init__(self) -> None:
        self.inflater = zlib.decompressobj(-15)
        self.fresh = True
        self.ended = 0

    def feed(self, byte: int) -> bytes:
        plain = self.inflater.decompress(bytes([byte]))
        self.fresh = False
        if self.inflater.eof:
            self.inflater = zlib.decompressobj(-15)
            self.fresh = True
            self.ended += 1
        return plain


class Decoder:
    """One stream. `masked` is whether the peer has to mask: whether it is a client."""

    def __init__(
        self, stream: bytes, *, limit: float, masked: bool, deflate: bool, takeover: bool
    ) -> None:
        self.stream = stream
        self.limit = limit
        self.must_mask = masked
        self.deflate = deflate
        self.takeover = takeover
        self.context = Context()
        self.message: Message | None = None
        self.events: list[Event] = []

    def run(self) -> list[Event]:
        position = 0
        while position < len(self.stream) and not self.over:
            position = self.frame(position)
        return self.events

    @property
    def over(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], (Closed, Failure))

    def frame(self, start: int) -> int:
        """Read the frame at `start`; give where the next one is."""
        header = read_header(self.stream[start : start + 10])
        wrong = self.wrong_with(header)
        complete = header.length is not None
        length = header.length or 0
        begin = start + header.size + (4 if header.masked else 0)
        payload = self.stream[begin : begin + length]
        begun = complete and begin <= len(self.stream) and (length == 0 or payload != b"")
        if wrong:
            # A frame out of sequence is wrong whatever is in it, so nothing more is looked at.
            self.events.append(
                Failure(frozenset(wrong), header_only=not begun, partial_header=not complete)
            )
            return len(self.stream)
        if not begun:
            return len(self.stream)
        if header.masked:
            key = self.stream[begin - 4 : begin]
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        whole = len(payload) == length
        if not header.control:
            self.data_frame(header, payload, whole=whole)
        elif whole:
            self.control_frame(header.opcode, payload)
        return begin + length

    def wrong_with(self, header: Header) -> set[str]:
        wrong: set[str] = set()
        if header.opcode not in (0, 1, 2, 8, 9, 10):
            wrong.add("opcode")
        if header.rsv and not (header.rsv == 0b100 and self.deflate and header.opcode in (1, 2)):
            wrong.add("reserved bit")
        if header.control and not header.fin:
            wrong.add("fragmented control")
        if header.masked is not None and header.masked is not self.must_mask:
            wrong.add("mask")
        if not header.minimal:
            wrong.add("length")
        if header.control and (header.length or 0) > 125:
            wrong.add("long control")
        if not header.control:
            if (header.opcode == 0) is (self.message is None):
                wrong.add("sequence")
            if header.length is not None and self.count(header) > self.limit:
                wrong.add("limit")
        return wrong

    def count(self, header: Header) -> int:
        """What the message counts with this frame, as far as its header tells."""
        message = self.message
        length = header.length or 0
        if message is None:
            if header.opcode == 0:  # of nothing
                return max(length, CHARGE)
            return 0 if header.rsv & 0b100 and self.deflate else length
        if header.opcode != 0:  # out of sequence
            return message.counted + max(length, CHARGE)
        return message.counted + (CHARGE if message.compressed else max(length, CHARGE))

    def data_frame(self, header: Header, payload: bytes, *, whole: bool) -> None:
        counted = self.count(header)
        if self.message is None:
            self.message = Message(text=header.opcode == 1, compressed=bool(header.rsv))
        message = self.message
        message.counted = counted
        final = whole and header.fin
        wrong: set[str] = set()
        if message.compressed:
            wrong |= self.inflate(message, payload)
            if final and not wrong:
                wrong |= self.end_of_compressed(message)
        else:
            message.plain += payload
        if message.text and not is_text(message.plain, final=final):
            wrong.add("utf-8")
        if wrong:
            self.events.append(Failure(frozenset(wrong)))
        elif final:
            plain = bytes(message.plain)
            self.events.append(plain.decode() if message.text else plain)
            self.message = None

    def inflate(self, message: Message, payload: bytes) -> set[str]:
        """Byte by byte, to the end of the frame, also over the limit."""
        wrong: set[str] = set()
        for byte in payload:
            ended = self.context.ended
            try:
                plain = self.context.feed(byte)
            except zlib.error:
                return wrong | {"inflating"}
            message.plain += plain
            message.counted += len(plain) + CHARGE * (self.context.ended - ended)
            if message.counted > self.limit:
                wrong.add("limit")
        return wrong

    def end_of_compressed(self, message: Message) -> set[str]:
        """The four bytes that the sender left out (RFC 7692 section 7.2.1), and the context."""
        context = self.context
        wrong: set[str] = set()
        # After a stream that ended just here there is no block to complete; nor in a message that
        # has no byte, which no compressor makes (7.2.3.6) and the RFC does not speak of.
        if not context.fresh:
            wrong = self.inflate(message, b"\x00\x00\xff\xff")
        # History reaches back over the message only where that was agreed.
        if not self.takeover:
            self.context = Context()
        return wrong

    def control_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 8:
            self.events.append(read_close(payload))
        else:
            self.events.append(Control("ping" if opcode == 9 else "pong", payload))


def read_header(data: bytes) -> Header:
    """RFC 6455 section 5.2, from the first byte on."""
    header = Header(fin=data[0] >= 128, rsv=data[0] >> 4 & 7, opcode=data[0] & 15, size=1)
    if len(data) < 2:
        return header
    header.masked = data[1] >= 128
    short = data[1] & 127
    header.size = {126: 4, 127: 10}.get(short, 2)
    if header.control and short > 125:
        header.length = short  # too long, whatever follows
    elif len(data) >= header.size:
        header.length = short if header.size == 2 else int.from_bytes(data[2 : header.size], "big")
        least = {2: 0, 4: 126, 10: 65536}[header.size]
        header.minimal = least <= header.length < 2**63
    return header


def read_close(payload: bytes) -> Closed | Failure:
    """RFC 6455 sections 5.5.1 and 7.4, and IANA's registry, which has 1012 to 1014 since."""
    if not payload:
        return Closed(1005, "")
    wrong: set[str] = set()
    code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 0
    if code not in {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}:
        wrong.add("close code")
    if not is_text(payload[2:], final=True):
        wrong.add("utf-8")
    return Failure(frozenset(wrong)) if wrong else Closed(code, payload[2:].decode())


def is_text(data: bytes | bytearray, *, final: bool) -> bool:
    """Whether it is UTF-8, or may still become UTF-8."""
    if re.search(rb"\xed[\xa0-\xbf]", data):  # a surrogate, or half of one
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(bytes(data), final)
    except UnicodeDecodeError:
        return False
    return True


def decode(
    stream: bytes,
    *,
    limit: float = math.inf,
    masked: bool = True,
    deflate: bool = False,
    takeover: bool = True,
) -> list[Event]:
    """What `stream` says to the end that receives it, up to the first thing that ends it."""
    return Decoder(stream, limit=limit, masked=masked, deflate=deflate, takeover=takeover).run()


# ---------------------------------------------------------------------------
# Where a decoder may differ
# ---------------------------------------------------------------------------


def disagreement(
    expected: list[Event], events: list[Event], code: int | None, *, deflate: bool
) -> str | None:
    """What is wrong with the `events` that a decoder gave, and the code that it then failed with.

    Messages, pings, pongs and the peer's Close have to be the same. About failing there are two
    rules of leniency:

    1. Of several things that are wrong in one frame, either may be the one that is told: the RFC
       has no order among them.
    2. A frame of which only the header is there, or a part of it, may be refused now or later. But
       a whole header that breaks a rule of its own or a limit has to be refused at once. What may
       wait is what depends on the message around it: its sequence, and a limit that DEFLATE streams
       which ended in it have used up.
    """
    failure = expected[-1] if expected and isinstance(expected[-1], Failure) else None
    before = expected[:-1] if failure else expected
    if events != before:
        return f"{events!r} is not {before!r}"
    if failure is None:
        return None if code is None else f"failed with {code} for nothing"
    if code is None:
        return None if _may_wait(failure, deflate=deflate) else f"not failed at {failure}"
    return None if code in failure.codes else f"failed with {code} at {failure}"


def _may_wait(failure: Failure, *, deflate: bool) -> bool:
    if failure.partial_header:
        return True
    around = {"sequence", "limit"} if deflate else {"sequence"}
    return failure.header_only and failure.wrong <= around
