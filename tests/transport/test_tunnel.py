"""A transport as a trio stream again."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.helpers import tcp_pair
from trio_ws._transport.sockets import wrap_stream
from trio_ws._transport.system import socket_address
from trio_ws._transport.tunnel import TunnelStream


async def test_it_is_a_stream_as_trio_wants_it() -> None:
    end, other_end = await tcp_pair()
    one, other = TunnelStream(wrap_stream(end), b""), TunnelStream(wrap_stream(other_end), b"")
    async with one, other:
        await one.wait_send_all_might_not_block()
        await one.send_all(bytearray(b"hello"))
        assert await other.receive_some() == b"hello"
        await one.aclose()
        assert await other.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()


async def test_what_was_read_before_comes_first_in_pieces_of_any_size() -> None:
    one, other = await tcp_pair()
    async with TunnelStream(wrap_stream(one), b"first") as stream, other:
        await other.send_all(b"second")
        assert await stream.receive_some(2) == b"fi"
        assert await stream.receive_some() == b"rst"
        assert await stream.receive_some(3) == b"sec"
        assert await stream.receive_some(100) == b"ond"


async def test_what_was_read_before_is_gone_once_it_is_closed() -> None:
    one, other = await tcp_pair()
    async with other:
        stream = TunnelStream(wrap_stream(one), b"first")
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_it_has_the_addresses_of_its_socket_and_none_without_one() -> None:
    one, other = await tcp_pair()
    async with TunnelStream(wrap_stream(one), b"") as stream, other:
        assert socket_address(stream, "getpeername") == other.socket.getsockname()
    end, _ = trio.testing.memory_stream_pair()
    assert socket_address(TunnelStream(wrap_stream(end), b""), "getsockname") is None
