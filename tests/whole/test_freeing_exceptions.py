"""Exceptions and nurseries keep no connection alive that is over."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.helpers import open_server_with_raw_client, tcp_pair
from tests.whole.freeing_helpers import ENDS, Boom, End, no_cycle, ping, receive, send
from trio_ws import ConnectionClosed, WebSocket
from trio_ws._nursery import open_bare_nursery

pytestmark = [pytest.mark.autojump, pytest.mark.usefixtures("the_collector_is_off")]


# ---------------------------------------------------------------------------
# The nursery behind them
# ---------------------------------------------------------------------------


async def cancel_itself(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    nursery.cancel_scope.cancel()
    await trio.sleep_forever()


async def be_cancelled_from_outside(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    scope.cancel()
    await trio.sleep_forever()


async def fail_alone(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    nursery.cancel_scope.cancel()
    raise Boom


async def fail_with_a_task(nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    async def fail_in_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Boom

    nursery.start_soon(fail_in_the_end)
    await trio.testing.wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    raise Boom


BODIES = (
    cancel_itself,
    be_cancelled_from_outside,
    fail_alone,
    fail_with_a_task,
)


@pytest.mark.parametrize("body", BODIES)
async def test_a_bare_nursery_leaves_no_cycle(body: Any) -> None:
    async def open_it() -> None:
        with trio.CancelScope() as scope:
            try:
                async with open_bare_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    await body(nursery, scope)
            except* Boom:
                pass

    with no_cycle():
        await open_it()


# ---------------------------------------------------------------------------
# The exceptions themselves
# ---------------------------------------------------------------------------


async def raised_by(use: Callable[[WebSocket], Awaitable[object]], end: End) -> Exception:
    """The error that tells a receiver of the end. Nothing else of the conversation is kept."""
    client, server = await tcp_pair()
    async with open_server_with_raw_client(streams=(client, server), close_timeout=0.2) as (
        ws,
        peer,
    ):
        await end(ws, peer, trio.CancelScope())
        with pytest.raises((ConnectionClosed, trio.ClosedResourceError)) as info:
            await use(ws)
    return info.value


@pytest.mark.parametrize("end", ["1000", "1002", "no code", "EOF", "reset", "violation", "aclose"])
@pytest.mark.parametrize("use", [receive, send, ping])
async def test_an_exception_that_is_kept_can_be_copied_and_pickled(use: Any, end: str) -> None:
    error = await raised_by(use, ENDS[end])
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


async def test_a_connection_that_we_closed_is_not_kept_by_the_exception_that_says_so() -> None:
    async with open_server_with_raw_client(close_timeout=0.2) as (ws, _):
        await ws.aclose()
        with pytest.raises(trio.ClosedResourceError, match="this side closed") as info:
            await ws.receive()
    error = info.value.with_traceback(None)
    reference = weakref.ref(ws)
    del info, ws
    await trio.testing.wait_all_tasks_blocked()
    assert reference() is None, error


async def test_a_nursery_tells_our_close_of_another_connection_from_its_own() -> None:
    async with (
        open_server_with_raw_client(close_timeout=0.1) as (one, _),
        open_server_with_raw_client(close_timeout=0.1) as (other, _),
    ):
        await other.aclose()
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with one.open_nursery():
                await other.receive()
        async with one.open_nursery() as nursery:
            nursery.start_soon(one.aclose)
            await trio.sleep(1)
            await one.receive()
