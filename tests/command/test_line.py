"""What a supervisor and a worker say to each other, however it is cut."""

from __future__ import annotations

import socket
from contextlib import aclosing

import pytest
import trio
import trio.testing

from trio_ws._command.line import Line


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_however_messages_are_cut_they_arrive_whole_and_in_order(step: int) -> None:
    ours, theirs = socket.socketpair()
    said = b"ready\nnumbers {} {}\nleave\n"
    heard: list[tuple[str, str]] = []

    async def hear(line: Line) -> None:
        async with aclosing(line.messages()) as messages:
            heard.extend([message async for message in messages])

    async with Line(theirs) as line, trio.open_nursery() as nursery:
        nursery.start_soon(hear, line)
        with ours:
            for start in range(0, len(said), step):
                ours.sendall(said[start : start + step])
                await trio.testing.wait_all_tasks_blocked()
    assert heard == [("ready", ""), ("numbers", "{} {}"), ("leave", "")]


async def test_several_tasks_may_speak_and_long_texts_stay_whole() -> None:
    ours, theirs = socket.socketpair()
    texts = {letter * 1_000_000 for letter in "abc"}
    async with Line(ours) as one, Line(theirs) as other, trio.open_nursery() as nursery:
        for text in texts:
            nursery.start_soon(one.say, "numbers", text)
        async with aclosing(other.messages()) as messages:
            heard = {await anext(messages) for _ in texts}
    assert heard == {("numbers", text) for text in texts}


async def test_nothing_happens_to_who_speaks_when_nobody_hears_any_more() -> None:
    ours, theirs = socket.socketpair()
    async with Line(ours) as line:
        theirs.close()
        await line.say("leave")
        assert [message async for message in line.messages()] == []
    await line.say("leave")
