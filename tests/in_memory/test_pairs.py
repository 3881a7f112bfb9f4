"""`trio_ws.testing`: both ends of one connection."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.in_memory.apps import tasks_living
from trio_ws import ConnectionFailed, ConnectionRejected, InvalidURL, Response
from trio_ws.testing import FaultyStream, open_pair

pytestmark = pytest.mark.autojump


async def test_a_pair_is_both_ends_of_one_connection() -> None:
    tasks = tasks_living()
    async with open_pair() as (client, server):
        await client.send("from the client")
        await server.send("from the server")
        assert await server.receive() == "from the client"
        assert await client.receive() == "from the server"
        assert server.request.target == "/"
    assert (await server.wait_closed()).code == 1000
    assert tasks_living() == tasks


async def test_a_pair_has_options_of_its_own_and_runs_over_any_streams() -> None:
    one, other = trio.testing.memory_stream_pair()
    async with open_pair(
        "ws://example.org/chat",
        client_options={"subprotocols": ["v1"]},
        server_options={"subprotocols": ["v1"], "headers": {"X-Server": "yes"}},
        streams=(FaultyStream(one, max_receive=1), FaultyStream(other, max_receive=1)),
    ) as (client, server):
        assert server.request.target == "/chat"
        assert client.subprotocol == server.subprotocol == "v1"
        assert client.response.headers["X-Server"] == "yes"
        await client.send("x" * 1000)
        assert await server.receive() == "x" * 1000


async def test_a_pair_that_does_not_come_to_terms_raises_what_was_wrong() -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with open_pair(server_options={"process_request": lambda request: Response(403)}):
            raise AssertionError("never reached")
    assert caught.value.response.status == 403

    wrong: Any = {"nonsense": 1}
    for options in ({"client_options": wrong}, {"server_options": wrong}):
        with pytest.raises(TypeError, match="nonsense"):
            async with open_pair(**options):
                raise AssertionError("never reached")

    with pytest.raises(InvalidURL):
        async with open_pair("chat"):
            raise AssertionError("never reached")

    one, other = trio.testing.memory_stream_pair()
    with pytest.raises(ConnectionFailed):
        async with open_pair(streams=(one, FaultyStream(other, fail_at=1))):
            raise AssertionError("never reached")


async def test_an_error_of_the_block_of_a_pair_comes_out_as_it_is() -> None:
    for error in (KeyError("own"), ConnectionFailed("own")):
        with pytest.raises(type(error)) as caught:
            async with open_pair():
                raise error
        assert caught.value is error
