"""The seam to wsproto, which judges the protocol: what it lets pass and the RFC does not.

This module owns what wsproto sees of each frame before it takes it: the limit on messages, the
order of data frames around control frames, and two close codes that wsproto does not know.
"""

from __future__ import annotations

from wsproto import frame_protocol
from wsproto.extensions import Extension
from wsproto.frame_protocol import FrameDecoder, FrameProtocol, Opcode, RsvBits

from .._errors import CloseCode
from .arriving import is_half_surrogate
from .codec import Codec, too_big
from .events import CLOSE_CODE, NOT_UTF8, Refused, Violation

#: What a frame of a fragmented message counts at least, so that even empty ones run out.
MIN_FRAGMENT_CHARGE = 64


class Guard(Extension):
    """Sees every frame before wsproto takes it, through wsproto's own door for extensions.

    One account for each message that comes: what it holds so far, inflated, with each fragment
    counted at least `MIN_FRAGMENT_CHARGE`. wsproto shows a header again when a read ended inside
    its masking key, so that looking at a header must change nothing that looking again would not.
    """

    name = "guard"

    def __init__(self, limit: float, codec: Codec | None) -> None:
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
            return self._refuse(too_big(self._limit))
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
            if is_half_surrogate(self._end):
                return self._refuse(Refused(CloseCode.INVALID_PAYLOAD, NOT_UTF8.reason))
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

    def _refuse(self, refused: Refused) -> frame_protocol.CloseReason:
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
        # wsproto refuses 1014, which IANA has registered since, so it is shown 1013 instead.
        # A control frame's payload always comes in one piece.
        if self._opcode is Opcode.CLOSE and data[:2] == _BAD_GATEWAY:
            self.bad_gateway = True
            return _TRY_AGAIN_LATER + data[2:]
        return data


_OUT_OF_SEQUENCE = Refused(CloseCode.PROTOCOL_ERROR, "a data frame out of sequence")


_NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)


_RSV1 = RsvBits(rsv1=True, rsv2=False, rsv3=False)


_BAD_GATEWAY = CLOSE_CODE.pack(CloseCode.BAD_GATEWAY)


_TRY_AGAIN_LATER = CLOSE_CODE.pack(CloseCode.TRY_AGAIN_LATER)
