"""A broadcast with a backplane: messages, gaps and history of other processes."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.broadcast.broadcast_helpers import numbered, open_two
from tests.helpers import open_pair
from trio_ws import Broadcast
from trio_ws.backplane import BackplaneMessage, MemoryHub

pytestmark = pytest.mark.autojump


async def test_a_backplane_brings_messages_to_the_subscribers_of_other_processes() -> None:
    async with open_two(MemoryHub()) as (here, there):
        async with here.open_channel("a") as one, there.open_channel("a") as other:
            assert here.publish("1", "a") == 1
            assert await there.publish_wait("2", "a") == 1
            assert sorted([await one.receive(), await one.receive()]) == sorted(
                [await other.receive(), await other.receive()]
            )
        assert here.publish("nobody", "a") == 0
        await trio.testing.wait_all_tasks_blocked()
        assert (here.statistics().published, there.statistics().published) == (3, 2)
    assert here.publish("too late", "a") == 0
    here._receive(BackplaneMessage("a", "too late as well", True, None, None))
    assert here.statistics().published == 3
    with pytest.raises(ZeroDivisionError):
        async with open_two(MemoryHub()):
            raise ZeroDivisionError


async def test_a_gap_is_told_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    gaps: list[str | None] = []
    hub = MemoryHub()

    def note(broadcast: Broadcast, topic: str | None) -> None:
        gaps.append(topic)
        raise ValueError("mine")

    async with open_two(hub, envelope=numbered, history=10, on_gap=note) as (here, there):
        async with open_pair() as (client, ws):
            async with there.open_channel("b"):
                with there.subscribe(ws, "a"):
                    here.publish("1", "a")
                    known = str(await client.receive()).split()[0]
            there._note_gap("of another topic")
            with there.subscribe(ws, "a", position=known) as subscription:
                assert subscription.recovered
            hub.pause()
            hub.resume()
            await trio.testing.wait_all_tasks_blocked()
            assert "a" in gaps
            with there.subscribe(ws, "a", position=known) as subscription:
                assert not subscription.recovered
    assert "ValueError: mine" in caplog.text


async def test_an_envelope_that_fails_is_the_publishers_error_and_logged_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(message: str | bytes, position: str, topic: str) -> str:
        raise ValueError("mine")

    async with open_two(MemoryHub(), envelope=fail) as (here, there):
        async with here.open_channel("a"), there.open_channel("a"):
            with pytest.raises(ValueError, match="mine"):
                here.publish("1", "a")
            await trio.testing.wait_all_tasks_blocked()
    assert caplog.text.count("ValueError: mine") == 1
