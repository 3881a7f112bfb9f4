"""permessage-deflate on one connection (RFC 7692): what goes out smaller, what comes in larger.

This module owns the two directions of compression and their count. `deflate` negotiates it, and
does the compressing.
"""

from __future__ import annotations

import zlib

from .._errors import CloseCode
from .deflate import RESTART_CHARGE, Agreement, Deflate, Inflater, StepwiseDeflation
from .events import Refused
from .prepared import Prepared


class Codec:
    """permessage-deflate in both directions, and how many bytes went in and came out."""

    __slots__ = (
        "_deflater",
        "_inflater",
        "deflated_received",
        "deflated_sent",
        "plain_received",
        "plain_sent",
    )

    _inflater: Inflater | None
    """`None` after `discard`: nobody will get what it would make."""

    def __init__(self, settings: Deflate, agreement: Agreement, *, server: bool) -> None:
        self._inflater, self._deflater = agreement.codecs(settings, server=server)
        self.plain_sent = self.deflated_sent = self.plain_received = self.deflated_received = 0

    def inflate_whole(self, data: bytes | bytearray, limit: float) -> bytes:
        """Inflate a message of one frame. Raises as `inflate` does."""
        if self._inflater is None:
            return b""
        self.deflated_received += len(data)
        try:
            plain = self._inflater.inflate_whole(data, limit)
        except zlib.error as exc:
            raise _no_deflate() from exc
        if plain is None:
            raise too_big(limit)
        self.plain_received += len(plain)
        return plain

    def inflate_small(self, data: bytes | bytearray, most: float) -> bytes | None:
        """`inflate_whole`, if it has at most so many bytes; else nothing has happened, and `None`.

        Raises:
            Refused: `data` is not DEFLATE.
        """
        before = None if self._inflater is None else self._inflater.copy()
        try:
            return self.inflate_whole(data, most)
        except Refused as exc:
            if exc.violation.code != CloseCode.MESSAGE_TOO_BIG:
                raise
            self._inflater = before
            self.deflated_received -= len(data)
            return None

    def inflate(
        self, data: bytes, limit: float, *, already: float = 0, final: bool = False
    ) -> bytes:
        """Inflate the next part of a message; or, if `final`, what is left of it after the last.

        Args:
            data: the payload of a frame, or a piece of it.
            limit: the most bytes that the message may have.
            already: how many of them are used up.
            final: whether the message has ended; `data` is empty.

        Raises:
            Refused: `data` is not DEFLATE, or the message is larger than `limit`.
        """
        if self._inflater is None:
            return b""
        # DEFLATE streams that ended earlier in this message count too: a few bytes each, they would
        # otherwise cost a new decompressor each.
        room = limit - already - RESTART_CHARGE * self._inflater.restarts
        self.deflated_received += len(data)
        try:
            plain = self._inflater.finish(room) if final else self._inflater.inflate(data, room)
        except zlib.error as exc:
            raise _no_deflate() from exc
        if plain is None:
            raise too_big(limit)
        self.plain_received += len(plain)
        return plain

    def discard(self) -> None:
        self._inflater = None

    def pays(self, data: str | bytes) -> bool:
        return self._deflater.pays(data)

    def deflate(self, data: bytes, *, final: bool) -> bytes:
        deflated = self._deflater.deflate(data, final=final)
        self.plain_sent += len(data)
        self.deflated_sent += len(deflated)
        return deflated

    def begin_steps(self, data: str | bytes) -> StepwiseDeflation:
        return StepwiseDeflation(self._deflater.parameters, data)

    def end_steps(self, deflation: StepwiseDeflation) -> bytearray:
        """The compressed form, which is now sent. What follows begins anew: see below."""
        self.restart()
        self.plain_sent += deflation.size
        self.deflated_sent += len(deflation.deflated)
        return deflation.deflated

    def deflate_prepared(self, message: Prepared) -> bytes:
        """The frame of a message that other connections also send.

        It must not refer to what only this peer got before it. Nor may a later message refer back
        past it: the peer has this message in its window (RFC 7692 section 7.2.2), and this
        connection's compressor may not have seen it. So the message stands alone, and the next one
        begins anew.
        """
        frame = message.deflated(self._deflater.parameters)
        self.restart()
        self.plain_sent += len(message.plain)
        self.deflated_sent += len(frame)
        return frame

    def restart(self) -> None:
        self._deflater.restart()


def _no_deflate() -> Refused:
    return Refused(CloseCode.INVALID_PAYLOAD, "data that is not DEFLATE")


def too_big(limit: float) -> Refused:
    return Refused(CloseCode.MESSAGE_TOO_BIG, f"message over {limit} bytes")
