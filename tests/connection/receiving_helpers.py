"""x"""

from __future__ import annotations

from tests.helpers import CLOSE, CONTINUATION, FIN, PING, TEXT, close_frame, frame
from trio_ws import WebSocket


async def collect(ws: WebSocket) -> list[str | bytes]:
    async with ws.receive_message() as chunks:
        return [chunk async for chunk in chunks]


VIOLATIONS = {
    "an unknown opcode": (frame(0x3), 1002),
    "an unknown control opcode": (frame(0xB), 1002),
    "RSV1 without an extension": (frame(TEXT, b"x", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=2), 1002),
    "RSV3": (frame(TEXT, b"x", rsv=1), 1002),
    "a frame without a mask": (frame(TEXT, b"x", mask=False), 1002),
    "a fragmented control frame": (frame(PING, b"x", fin=False), 1002),
    "a long control frame": (frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a length with its top bit set": (bytes([FIN | TEXT, 0xFF]) + b"\x80" + bytes(7), 1002),
    "a length that is not minimal": (bytes([FIN | TEXT, 0xFE, 0, 5]) + bytes(9), 1002),
    "a long length that is not minimal": (bytes([FIN | TEXT, 0xFF]) + bytes(6) + b"\0\5", 1002),
    "a Close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "a Close with bad UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text that cannot become UTF-8": (frame(TEXT, b"\xf4\x90", fin=False), 1007),
    "text that ends within a character": (frame(TEXT, b"\xc3"), 1007),
    "bad UTF-8 in a later fragment": (
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"),
        1007,
    ),
    **{
        f"close code {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}
