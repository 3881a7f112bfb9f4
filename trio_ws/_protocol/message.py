"""What can be sent: text and buffers, copied so that the sender may change them afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .._buffer import bytes_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

    #: What can be sent: `str` goes out as text. Everything with the buffer protocol goes out as
    #: binary: bytes, bytearray, memoryview, array.array, mmap, NumPy's arrays and more. The message
    #: is then the bytes of its items in C order.
    Message: TypeAlias = str | Buffer
else:
    Message = str | bytes | bytearray | memoryview


def checked_message(message: Message) -> str | bytes:
    """`message`, or a copy of it that is safe from changes that its owner makes later.

    Raises:
        TypeError: it is neither `str` nor made of bytes.
        ValueError: it is a buffer that has been released or closed.
    """
    if isinstance(message, (str, bytes)):
        return message
    return bytes_of(message, _MESSAGE)


_MESSAGE = (
    "a message is str (sent as text) or a buffer such as bytes (sent as binary); send_json() is "
    "for everything else"
)
