"""The seam to wsproto, which judges the protocol: what wsproto lets pass and the RFC does not.

This module looks at each frame before wsproto takes it. It owns the limit on messages, the order of
data frames around control frames, inflating, and close code 1014, which wsproto does not know.
"""

from __future__ import annotations

from wsproto import frame_protocol
from wsproto.extensions import Extension
from wsproto.frame_protocol import FrameDecoder, FrameProtocol, Opcode, RsvBits

from .._errors import CloseCode
from .arriving import is_half_surrogate
from .codec import Codec, too_big
from .events import CLOSE_CODE, NOT_UTF8, Refused, Violation

#: What each further frame of a fragmented message counts at least. Without it, a peer could send
#: empty fragments for ever, and no limit on bytes would end the message.
MIN_FRAGMENT_CHARGE = 64


class Guard(Extension):
    """Sees every frame before wsproto takes it. To wsproto it is an extension (section 9).

    It keeps one account for the message that is arriving: what it holds so far, inflated, with each
    further fragment counted at least `MIN_FRAGMENT_CHARGE`.

    wsproto shows a header again when a read ended inside its masking key. So looking at a header
    twice must leave the same as looking once: `_charge` is set there, and added to `_charged` only
    when the frame is complete, as is `within_message`.
    """

    name = "guard"

    def __init__(self, limit: float, codec: Codec | None) -> None:
        self._limit = limit
        self._codec = codec
        self.bad_gateway = False
        #: Why it refused a frame, if it did.
        self.refusal: Violation | None = None
        #: What the complete frames of this message count, and what the arriving one does. Inflated
        #: bytes are charged at once: they are in memory before the frame is complete.
        self._charged = 0
        self._charge = 0
        self._opcode = Opcode.CONTINUATION
        #: Whether the arriving message is text, and the last two bytes of it so far.
        self._text = False
        self._end = b""
        #: Whether a message has begun to arrive and has not ended. While it is true, the wire gives
        #: every frame to wsproto.
        self.within_message = False
        #: Whether the arriving message is compressed.
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
        """Refuse a frame before any of its payload, or say which RSV bits it may have.

        wsproto refuses a frame that has others (RFC 6455 section 5.2).
        """
        self._opcode = opcode
        if opcode.iscontrol():
            # A control frame may come between two fragments (RFC 6455 section 5.4). The account
            # must not change, and control frames are never compressed (RFC 7692 section 6).
            return _NO_RSV
        # wsproto does not say here whether FIN is set. A first frame may be a whole message, so it
        # is charged what it holds: with the minimum, an empty message would exceed a small limit.
        first = opcode is not Opcode.CONTINUATION
        if first is self.within_message:
            # wsproto would notice, but only after the payload was inflated. That would be work for
            # nothing, and could fail with 1007 where the fault is 1002.
            return self._refuse(_OUT_OF_SEQUENCE)
        self._charge = payload_length if first else max(payload_length, MIN_FRAGMENT_CHARGE)
        if first:
            self._text, self._end = opcode is Opcode.TEXT, b""
            self._inflating = rsv.rsv1 and self._codec is not None
        if self._inflating:
            # What it will inflate to is not known yet: `_inflate` charges that.
            self._charge = 0 if first else MIN_FRAGMENT_CHARGE
        if self._charged + self._charge > self._limit:
            # Here, before the payload: a peer that announces a gigabyte need not send it.
            return self._refuse(too_big(self._limit))
        # Only the first frame of a message is marked as compressed (RFC 7692 section 6), so RSV1 in
        # a later one is a violation.
        return _RSV1 if self._inflating and first else _NO_RSV

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | frame_protocol.CloseReason:
        """Give the payload that wsproto is to see. It comes unmasked, a piece for each read."""
        if self._opcode.iscontrol():
            return self._control_payload(data)
        plain = self._inflate(data, final=False) if self._inflating else data
        if self._text and not isinstance(plain, frame_protocol.CloseReason):
            # wsproto uses Python's decoder, which waits for the third byte of a surrogate. The
            # short way refuses at the second, and both must say the same at the same byte.
            self._end = (self._end + plain[-2:])[-2:]
            if is_half_surrogate(self._end):
                return self._refuse(Refused(CloseCode.INVALID_PAYLOAD, NOT_UTF8.reason))
        return plain

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,
        fin: bool,  # noqa: FBT001 - wsproto's signature
    ) -> bytes | frame_protocol.CloseReason | None:
        """Close the account of a frame, and of the message with its last one."""
        if self._opcode.iscontrol():
            return None
        self._charged += self._charge
        self._charge = 0
        # The end of each compressed message was left out by its sender; what it brings out is the
        # rest of the message (RFC 7692 section 7.2.2).
        rest = self._inflate(b"", final=True) if fin and self._inflating else None
        if fin:
            self._charged = 0
        self.within_message = not fin
        return rest

    def _refuse(self, refused: Refused) -> frame_protocol.CloseReason:
        # wsproto keeps the code and drops the reason, so the wire asks for it here.
        self.refusal = refused.violation
        return frame_protocol.CloseReason(refused.violation.code)

    def _inflate(self, data: bytes, *, final: bool) -> bytes | frame_protocol.CloseReason:
        assert self._codec is not None
        already = self._charged + self._charge
        try:
            plain = self._codec.inflate(data, self._limit, already=already, final=final)
        except Refused as exc:
            return self._refuse(exc)
        self._charged += len(plain)
        return plain

    def _control_payload(self, data: bytes) -> bytes:
        # wsproto refuses 1014, which IANA has registered since. So it is shown 1013, and the wire
        # puts 1014 back. A control frame's payload always comes in one piece.
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY:
            self.bad_gateway = True
            return _TRY_AGAIN_LATER + data[2:]
        return data


_OUT_OF_SEQUENCE = Refused(CloseCode.PROTOCOL_ERROR, "a data frame out of sequence")


_NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)


_RSV1 = RsvBits(rsv1=True, rsv2=False, rsv3=False)


_BAD_GATEWAY = CLOSE_CODE.pack(CloseCode.BAD_GATEWAY)


_TRY_AGAIN_LATER = CLOSE_CODE.pack(CloseCode.TRY_AGAIN_LATER)
