"""permessage-deflate (RFC 7692): its settings, and one connection's compressor and decompressor.

This module inflates and deflates as two sides have agreed (see `negotiation`). It does not see
frames: the wire hands it payloads. How much a message may still inflate to is part of the one
account that the wire keeps of each message.

What it promises beyond the RFC:

- Inflating stops at the byte that the message limit allows, whatever the data says.
- A message may consist of several DEFLATE streams, each but the last ended early (BFINAL=1, section
  7.2.3.4). Each counts as a fragment does, so that a message cannot consist of a million of them.
- Nothing is allocated before the first message that needs it. An idle connection, or one whose
  messages are all small, costs what it costs without compression.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol, final

from .._arguments import check_whole
from .compressors import (
    Z_FULL_FLUSH,
    Z_SYNC_FLUSH,
    Compressor,
    Parameters,
    give_back,
    take_compressor,
)

NAME = "permessage-deflate"

#: What the end of each compressed message leaves out (RFC 7692 section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"

#: Window sizes, as powers of 2. RFC 7692 section 7.1.2 allows 8 to 15. zlib cannot compress raw
#: DEFLATE with a window of 8.
MIN_BITS, MAX_BITS = 8, 15
_MIN_COMPRESSING_BITS = 9

#: What this side compresses with, unless told otherwise or allowed less. A sender may look back
#: less far than agreed, so there is no need to tell the peer.
DEFAULT_BITS = 12


@final
@dataclass(frozen=True, kw_only=True)
class Deflate:
    """Settings of permessage-deflate. The page on compression has the figures behind the defaults.

    Raises:
        TypeError, ValueError: a setting is of the wrong type, or out of its range.
    """

    level: int = 3
    """zlib's, from 0 (none) to 9. Higher levels cost CPU time for a few per cent of the size. With
    the extra ``speedups``, ISA-L takes levels 1 to 3."""

    mem_level: int = 5
    """zlib's, from 1 to 9: part of the memory of a compressor. 5 takes 16 KiB, 8 takes 128 KiB.
    Below 5, zlib compresses whatever is installed: ISA-L would take more."""

    server_window_bits: int | None = None
    """The window of what the server sends, from 9 to 15: a compressor looks 2**bits bytes back for
    repetitions. It takes four times that in memory; a decompressor takes it once.

    By default, `None`, a server compresses with 12 bits, or fewer where the client asks for it, and
    a client leaves the choice to the server. A client with a number below 15 asks for that window.
    Some servers refuse the connection when asked, so leave it unless memory is short."""

    client_window_bits: int | None = None
    """The same for what the client sends. By default, a client compresses with 12 bits, or fewer
    where the server asks for it, and a server leaves the choice to the client. A server with a
    number asks for that window, if the client says that it can be asked."""

    server_context_takeover: bool = True
    """Whether the server's compressor goes on from message to message. Small similar messages
    compress much better; but both sides keep a window for as long as the connection lives."""

    client_context_takeover: bool = True
    """The same for the client's compressor."""

    threshold: int = 1024
    """Messages below this many bytes, text in UTF-8, go uncompressed, unless `send` is told
    otherwise: they would hardly get smaller, and cost a compressor for each connection."""

    def __post_init__(self) -> None:
        check_whole("level", self.level, 0, 9)
        check_whole("mem_level", self.mem_level, 1, 9)
        for name in ("server_window_bits", "client_window_bits"):
            bits = getattr(self, name)
            if bits is not None:
                check_whole(name, bits, _MIN_COMPRESSING_BITS, MAX_BITS)
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, (int, float)):
            raise TypeError(f"threshold is a number of bytes, not {self.threshold!r}")
        if not self.threshold >= 0:
            raise ValueError(f"threshold is a number of bytes, not {self.threshold!r}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the server's answer says, which binds both sides.

    A window is `None` where the answer does not mention it: it may be the largest (section 7.1.2).
    """

    server_window_bits: int | None = None
    client_window_bits: int | None = None
    server_context_takeover: bool = True
    client_context_takeover: bool = True

    def allows_deflating(self, *, server: bool) -> bool:
        """Whether one end can compress: zlib cannot with a window of 256 bytes.

        An end that cannot sends its messages uncompressed, which is always allowed (section 6).
        """
        bits = self.server_window_bits if server else self.client_window_bits
        return bits is None or bits >= _MIN_COMPRESSING_BITS

    def codecs(self, settings: Deflate, *, server: bool) -> tuple[Inflater, Deflater]:
        """What one end inflates and deflates with. Neither holds anything until it is used.

        To deflate, it may take a smaller window than agreed, or forget its context though it need
        not. To inflate, it must be ready for all that the peer may do.
        """
        if server:
            theirs, they_go_on = self.client_window_bits, self.client_context_takeover
            ours, wanted = self.server_window_bits, settings.server_window_bits
            we_go_on = self.server_context_takeover and settings.server_context_takeover
        else:
            theirs, they_go_on = self.server_window_bits, self.server_context_takeover
            ours, wanted = self.client_window_bits, settings.client_window_bits
            we_go_on = self.client_context_takeover and settings.client_context_takeover
        # The peer may have agreed to 256 bytes and compress with 512: old versions of zlib do that
        # without saying so. A larger window inflates both.
        inflater = Inflater(
            bits=max(theirs or MAX_BITS, _MIN_COMPRESSING_BITS), takeover=they_go_on
        )
        bits = min(ours or MAX_BITS, wanted or DEFAULT_BITS)
        return inflater, Deflater(settings, bits=bits, takeover=we_go_on)

    def __str__(self) -> str:
        """The agreement as the server's response names it."""
        parts = [NAME]
        if not self.server_context_takeover:
            parts.append("server_no_context_takeover")
        if not self.client_context_takeover:
            parts.append("client_no_context_takeover")
        if self.server_window_bits is not None:
            parts.append(f"server_max_window_bits={self.server_window_bits}")
        if self.client_window_bits is not None:
            parts.append(f"client_max_window_bits={self.client_window_bits}")
        return "; ".join(parts)


# ---------------------------------------------------------------------------
# Compressing
# ---------------------------------------------------------------------------


#: From this many bytes on, a message is sampled before it is compressed. Data that does not get
#: smaller takes eight times as long to compress as text; a sample takes a hundredth of that.
SAMPLE_FROM = 64 * 1024

#: How many slices a sample has, evenly spread, and how many bytes each has.
_SLICES, _SLICE = 4, 256

#: Compressing pays only if the message gets smaller by a tenth.
_WORTHWHILE = 0.9


#: From here on a message is compressed in steps of `STEP` bytes or characters, and other tasks get
#: their turns in between. A step takes a millisecond at the default level. No window is as large as
#: this, so it makes no difference that such a message refers to nothing before it.
IN_STEPS_FROM = 64 * 1024 + 1
STEP = 32 * 1024

#: The most that is compressed where nobody can wait, unless the application says that it is to be:
#: 5 ms at the default level, half of that with ISA-L.
AT_ONCE = 512 * 1024


def is_compressible(data: str | bytes) -> bool:
    """Whether a sample of `data` gets smaller. Less than a kilobyte is not judged: it may.

    Raises:
        UnicodeEncodeError: the sample is a `str` with lone surrogates.
    """
    if len(data) < _SLICES * _SLICE:
        return True
    step = (len(data) - _SLICE) // (_SLICES - 1)
    slices = [data[start : start + _SLICE] for start in range(0, _SLICES * step, step)]
    sample = b"".join(map(in_bytes, slices))
    return len(zlib.compress(sample, 1)) < _WORTHWHILE * len(sample)


def in_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


class Deflater:
    """One direction: what this side sends."""

    __slots__ = ("_compressor", "_in_doubt", "_takeover", "parameters")

    def __init__(self, settings: Deflate, *, bits: int, takeover: bool) -> None:
        #: Two deflaters with the same parameters give the same bytes for the same first message.
        self.parameters: Parameters = (settings.level, bits, settings.mem_level)
        self._takeover = takeover
        self._compressor: Compressor | None = None
        #: The last message hardly got smaller, so the next one is sampled whatever its size: where
        #: one image was sent, the next message is likely to be another.
        self._in_doubt = False

    def pays(self, data: str | bytes) -> bool:
        """Whether to compress a message, where the application leaves it to us.

        Messages of a kind that does not get smaller, such as images, video and encrypted data, are
        not compressed.
        """
        if self._in_doubt or len(data) >= SAMPLE_FROM:
            self._in_doubt = not is_compressible(data)
        return not self._in_doubt

    @property
    def idle(self) -> bool:
        """Whether it holds no memory: before the first message, or between two without takeover."""
        return self._compressor is None

    def restart(self) -> None:
        """Let the next message, or the next part of one, refer to nothing before it."""
        self._compressor = None

    def deflate(self, data: bytes, *, final: bool) -> bytes:
        """The compressed form of a message, or of the next part of one (section 7.2.1)."""
        compressor = self._compressor or take_compressor(self.parameters)
        # What fails half-way leaves a compressor that knows of bytes which the peer never gets.
        self._compressor = None
        # The flush ends with an empty block, which aligns what comes next to a whole byte. It is
        # left out at the end of a message only: between two frames it is part of the stream.
        if not final or self._takeover:
            compressed = compressor.compress(data) + compressor.flush(Z_SYNC_FLUSH)
            self._compressor = compressor
            if not final:
                return compressed
        else:
            compressed = compressor.compress(data) + compressor.flush(Z_FULL_FLUSH)
            give_back(self.parameters, compressor)
        self._in_doubt = len(compressed) > _WORTHWHILE * len(data) > 0
        return compressed[: -len(_TAIL)]


def deflate_alone(parameters: Parameters, data: bytes) -> bytes:
    """The compressed form of a message that refers to nothing before it."""
    compressor = take_compressor(parameters)
    compressed = compressor.compress(data) + compressor.flush(Z_FULL_FLUSH)
    give_back(parameters, compressor)
    return compressed[: -len(_TAIL)]


@final
class StepwiseDeflation:
    """A large message, or a large part of one, that is compressed bit by bit.

    It refers to nothing that was sent before. So whoever sends it may give it up before it is
    through, and other messages may be sent before it.

    Args:
        parameters: how to compress.
        data: what to compress.
    """

    __slots__ = ("_compressor", "_data", "_parameters", "_position", "deflated", "size")

    def __init__(self, parameters: Parameters, data: str | bytes) -> None:
        self._parameters = parameters
        self._data = data
        self._position = 0
        self._compressor = take_compressor(parameters)
        #: How many bytes were compressed, and what they became.
        self.size: int = 0
        self.deflated: bytearray = bytearray()

    def step(self) -> bool:
        """Compress the next `STEP`; false if that was the last.

        Raises:
            UnicodeEncodeError: it is a `str` with lone surrogates.
        """
        piece = in_bytes(self._data[self._position : self._position + STEP])
        self._position += STEP
        self.size += len(piece)
        self.deflated += self._compressor.compress(piece)
        if self._position < len(self._data):
            return True
        self.deflated += self._compressor.flush(Z_FULL_FLUSH)
        give_back(self._parameters, self._compressor)
        return False

    def end_message(self) -> None:
        """Leave out what the end of each compressed message leaves out."""
        del self.deflated[-len(_TAIL) :]


# ---------------------------------------------------------------------------
# Inflating
# ---------------------------------------------------------------------------


class _Decompressor(Protocol):
    """zlib's decompression object; the standard library does not export its type."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | bytearray, max_length: int = ..., /) -> bytes: ...
    def copy(self) -> _Decompressor: ...


class Inflater:
    """The other direction: what the peer sends."""

    __slots__ = ("_bits", "_decompressor", "_takeover", "restarts")

    def __init__(self, *, bits: int, takeover: bool) -> None:
        self._bits = bits
        self._takeover = takeover
        self._decompressor: _Decompressor | None = None
        #: How often a stream ended within this message (BFINAL=1), so that another one may begin.
        self.restarts = 0

    @property
    def idle(self) -> bool:
        """Whether it holds no memory, as `Deflater.idle`."""
        return self._decompressor is None

    def copy(self) -> Inflater:
        """Another one that goes on from here."""
        other = Inflater(bits=self._bits, takeover=self._takeover)
        if self._decompressor is not None:
            other._decompressor = self._decompressor.copy()
        return other

    def inflate_whole(self, data: bytes | bytearray, room: float) -> bytes | None:
        """What a whole message inflates to; `None` if that is more than `room` bytes.

        The same as `inflate` and then `finish`, in less time.

        Raises:
            zlib.error: `data` is not DEFLATE.
        """
        if self._decompressor is None:
            if not data:
                return b""
            self._decompressor = zlib.decompressobj(-self._bits)
        # In one call, as nearly always one stream goes on over the whole of it.
        plain = self._decompressor.decompress(data + _TAIL, _one_more_than(room))
        if self._decompressor.eof:
            return self._inflate_on(plain, self._decompressor.unused_data, room)
        if not self._takeover:
            self._decompressor = None
        return plain if len(plain) <= room else None

    def _inflate_on(self, plain: bytes, unused: bytes, room: float) -> bytes | None:
        """The whole of a message whose first stream ended before the tail, or within it."""
        self._decompressor = None
        self.restarts += 1
        data = unused.removesuffix(_TAIL)
        more = self.inflate(data, room - len(plain) - RESTART_CHARGE)
        if more is None:
            return None
        plain += more
        tail = unused[len(data) :]
        rest = self.finish(room - len(plain) - RESTART_CHARGE * self.restarts, tail)
        return None if rest is None else plain + rest

    def inflate(self, data: bytes, room: float) -> bytes | None:
        """What `data` inflates to; `None` if that is more than `room` bytes.

        Raises:
            zlib.error: `data` is not DEFLATE.
        """
        pieces: list[bytes] = []
        while data and room >= 0:
            if self._decompressor is None:
                self._decompressor = zlib.decompressobj(-self._bits)
            piece = self._decompressor.decompress(data, _one_more_than(room))
            pieces.append(piece)
            room -= len(piece)
            data = b""
            # What zlib did not take because of the limit is dropped: the message is refused. What
            # it did not take because the stream ended begins another (section 7.2.3.4).
            if self._decompressor.eof:
                data = self._decompressor.unused_data
                self._decompressor = None
                self.restarts += 1
                room -= RESTART_CHARGE
        return b"".join(pieces) if room >= 0 else None

    def finish(self, room: float, tail: bytes = _TAIL) -> bytes | None:
        """The rest of a message whose last frame came (section 7.2.2); `None` as in `inflate`."""
        # The sender left the tail out, so it is put back. A stream that ended with the message has
        # none: the tail would begin another.
        rest = b"" if self._decompressor is None else self.inflate(tail, room)
        if not self._takeover:
            self._decompressor = None
        self.restarts = 0
        return rest


def _one_more_than(room: float) -> int:
    """How many bytes to ask zlib for: getting one more than fits tells that there are too many.

    With exactly `room`, a message that fits would look like one that does not.
    """
    return int(room) + 1 if room <= _NO_LIMIT else 0  # 0 is no limit


#: What a stream that ends within a message counts, in bytes. It takes the peer a few bytes to send,
#: and this side a new decompressor to read.
RESTART_CHARGE = 64

#: From here on, room is no limit: zlib's lengths are C integers, and a larger one would overflow.
_NO_LIMIT = 2**30
