"""`reading`: its states, what leads from each to which, and that no byte is lost on the way.

The reader task here only stands by, and notes with what it was resumed. The socket is a real one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

import pytest
import trio
import trio.testing

from tests.helpers import reset, socket_pair, tcp_pair
from trio_ws._connection.reading import FIRST_PAUSE, LONGEST_PAUSE, Reading, Reads
from trio_ws._connection.watchdog import RELIEF, Watchdog
from trio_ws._transport.sockets import wrap_stream
from trio_ws._transport.stream import Transport

pytestmark = pytest.mark.autojump

READER, NOBODY, RECEIVER = Reads.READER, Reads.NOBODY, Reads.RECEIVER


class Scene:
    """One connection's `Reading`, with a reader task, a receiver, and the peer's socket."""

    def __init__(
        self,
        transport: Transport,
        watchdog: Watchdog,
        peer: trio.SocketStream,
        nursery: trio.Nursery,
    ) -> None:
        self.reading = Reading(transport, watchdog, nursery.start_soon)
        self.transport = transport
        self.peer = peer
        self.nursery = nursery
        #: With what the reader task was resumed, and what was raised to it instead.
        self.news: list[bytes | None] = []
        self.raised: list[Exception] = []
        #: What receivers read.
        self.received: list[bytes | None] = []
        self.receiving = trio.CancelScope()

    async def stand_by(self) -> None:
        """Start a reader task that stands by once."""
        self.nursery.start_soon(self._stand_by)
        await trio.testing.wait_all_tasks_blocked()

    async def _stand_by(self) -> None:
        try:
            if await self.reading.stand_by():
                self.news.append(self.reading.take_news())
        except Exception as exc:
            self.raised.append(exc)

    async def run(self) -> None:
        """Read as a reader task does that had to be started."""
        self.news.append(self.reading.take_news())

    async def receive(self) -> None:
        """Start a receiver, which waits for the socket if nothing has come."""
        self.receiving = trio.CancelScope()
        self.nursery.start_soon(self._receive, self.receiving)
        await trio.testing.wait_all_tasks_blocked()

    async def _receive(self, scope: trio.CancelScope) -> None:
        with scope:
            self.received.append(await self.reading.receive())

    def leave(self) -> None:
        self.reading.leave(trio.current_time())


@asynccontextmanager
async def open_scene(*, tcp: bool = False) -> AsyncGenerator[Scene, None]:
    """Nobody reads: the reader task stands by, and no task is in `receive`."""
    ours, peer = await tcp_pair() if tcp else socket_pair()
    watchdog = Watchdog()
    async with ours, peer, trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        scene = Scene(wrap_stream(ours), watchdog, peer, nursery)
        assert scene.reading.reads is READER
        await scene.stand_by()
        assert scene.reading.reads is NOBODY
        yield scene
        nursery.cancel_scope.cancel()


# The reader task reads…


async def test_the_reader_task_reads_until_it_stands_by() -> None:
    async with open_scene() as scene:
        assert scene.reading.reads is NOBODY
        assert scene.news == []


@pytest.mark.parametrize("name", ["recall", "reclaim"])
async def test_a_reader_task_that_reads_is_not_recalled(name: str) -> None:
    async with open_scene() as scene:
        scene.reading.recall()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            getattr(scene.reading, name)()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [None]
        assert scene.reading.reads is READER


async def test_the_reader_task_stands_by_again_and_again() -> None:
    async with open_scene() as scene:
        for number in range(5):
            scene.reading.recall()
            await trio.testing.wait_all_tasks_blocked()
            assert scene.news == [None] * (number + 1)
            await scene.stand_by()
            assert scene.reading.reads is NOBODY


# There is none…


async def test_no_reader_task_is_started_before_it_has_to_read() -> None:
    async with open_scene() as scene:
        scene.reading.let_go()
        scene.reading.begin(scene.run, b"")
        await scene.receive()
        await scene.peer.send_all(b"data")
        await trio.testing.wait_all_tasks_blocked()
        assert (scene.received, scene.news) == ([b"data"], [])
        scene.reading.hand_back(b"the rest")
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [b"the rest"]


async def test_a_reader_task_takes_in_what_came_behind_the_handshake() -> None:
    async with open_scene() as scene:
        scene.reading.let_go()
        scene.reading.begin(scene.run, b"received")
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [b"received"]


async def test_where_the_reader_task_was_just_let_go_another_is_started() -> None:
    async with open_scene() as scene:
        scene.reading.begin(scene.run, b"")
        tasks = trio.lowlevel.current_statistics().tasks_living
        scene.reading.let_go()
        scene.reading.let_go()  # which means nothing more
        scene.reading.recall()  # before the first has come to its end
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [None]
        assert trio.lowlevel.current_statistics().tasks_living == tasks - 1


async def test_a_reader_task_that_is_cancelled_cannot_be_let_go() -> None:
    async with open_scene() as scene:
        scene.nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        scene.reading.let_go()
        assert scene.news == []


# Nobody reads…


async def test_a_task_that_asks_for_the_next_message_reads() -> None:
    async with open_scene() as scene:
        await scene.receive()
        assert scene.reading.reads is RECEIVER
        await scene.peer.send_all(b"data")
        await trio.testing.wait_all_tasks_blocked()
        assert scene.received == [b"data"]
        assert scene.news == []


@pytest.mark.parametrize("name", ["recall", "reclaim"])
async def test_where_nobody_reads_the_reader_task_is_recalled(name: str) -> None:
    async with open_scene() as scene:
        getattr(scene.reading, name)()
        assert scene.reading.reads is READER
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [None]
        await trio.sleep(1)  # nor does the watchdog do it once more
        assert scene.news == [None]


async def test_a_task_that_waits_for_anything_else_recalls_the_reader_task_first() -> None:
    async with open_scene() as scene:

        async def wait() -> str:
            assert scene.reading.reads is READER
            await trio.testing.wait_all_tasks_blocked()
            assert scene.news == [None]
            return "what it waited for"

        start = trio.current_time()
        assert await scene.reading.wait_for(wait) == "what it waited for"
        assert trio.current_time() == start


async def test_what_waiting_raises_comes_out() -> None:
    async with open_scene() as scene:

        async def wait() -> None:
            raise trio.EndOfChannel

        with pytest.raises(trio.EndOfChannel):
            await scene.reading.wait_for(wait)


@pytest.mark.parametrize("used", [False, True])
async def test_where_no_task_comes_back_in_time_the_reader_task_is_recalled(used: bool) -> None:
    async with open_scene() as scene:
        if used:
            await scene.peer.send_all(b"data")
            await scene.receive()
            scene.leave()
        left_at = trio.current_time()
        while scene.reading.reads is NOBODY:
            await trio.sleep(RELIEF / 16)
        assert RELIEF <= trio.current_time() - left_at <= 2 * RELIEF + RELIEF / 16
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [None]


# A receiver reads…


async def test_a_receiver_waits_as_long_as_it_takes() -> None:
    async with open_scene() as scene:
        await scene.receive()
        await trio.sleep(1000)
        scene.reading.recall()  # it is not left unread, so nobody is recalled
        assert scene.reading.reads is RECEIVER
        assert scene.news == []
        await scene.peer.send_all(b"data")
        await trio.testing.wait_all_tasks_blocked()
        assert scene.received == [b"data"]


async def test_a_task_that_waits_for_anything_else_leaves_a_receiver_alone() -> None:
    async with open_scene() as scene:
        await scene.receive()
        with trio.move_on_after(1):
            await scene.reading.wait_for(trio.sleep_forever)
        assert scene.reading.reads is RECEIVER
        assert scene.news == []


async def test_after_messages_nobody_reads_until_a_task_asks_for_the_next() -> None:
    async with open_scene() as scene:
        for number in range(100):
            await scene.receive()
            await scene.peer.send_all(b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            assert scene.received.pop() == b"%d" % number
            assert scene.reading.reads is RECEIVER  # until it says what it was
            scene.leave()
            assert scene.reading.reads is NOBODY
        assert scene.news == []


@pytest.mark.parametrize("news", [b"rest", b"", None])
async def test_what_is_no_message_is_handed_back(news: bytes | None) -> None:
    async with open_scene() as scene:
        await scene.receive()
        await scene.peer.send_all(b"data")
        await trio.testing.wait_all_tasks_blocked()
        scene.reading.hand_back(news)
        assert scene.reading.reads is READER
        await trio.testing.wait_all_tasks_blocked()
        assert scene.news == [news]


async def test_the_end_of_file_is_something_that_came() -> None:
    async with open_scene() as scene:
        await scene.receive()
        await scene.peer.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.received == [b""]
        assert scene.reading.reads is RECEIVER


async def test_a_cancelled_receiver_read_nothing_and_the_reader_task_reads() -> None:
    async with open_scene() as scene:
        await scene.receive()
        scene.receiving.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.reading.reads is READER
        assert scene.received == []
        assert scene.news == [None]
        await scene.peer.send_all(b"data")
        assert await scene.transport.receive() == b"data"


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("kind", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_what_reading_raises_is_raised_to_the_reader_task(
    kind: type[Exception], looks: bool
) -> None:
    async with open_scene(tcp=True) as scene:
        if looks:
            await look_soon(scene)
        if kind is trio.BrokenResourceError:
            reset(scene.peer)
        else:
            await scene.transport.aclose()
        await scene.receive()
        assert scene.received == [None]
        assert scene.reading.reads is READER
        await trio.testing.wait_all_tasks_blocked()
        (raised,) = scene.raised
        assert type(raised) is kind


async def test_a_socket_that_is_closed_meanwhile_ends_the_wait_of_a_receiver() -> None:
    async with open_scene() as scene:
        await scene.receive()
        await scene.transport.aclose_forcefully()
        await trio.testing.wait_all_tasks_blocked()
        assert scene.received == [None]
        assert [type(exc) for exc in scene.raised] == [trio.ClosedResourceError]


async def test_at_the_end_of_the_connection_the_reader_task_reads_instead_of_a_receiver() -> None:
    async with open_scene() as scene:
        await scene.receive()
        scene.reading.reclaim()
        assert scene.reading.reads is READER
        await trio.testing.wait_all_tasks_blocked()
        assert scene.received == [None]
        assert scene.news == [None]
        await scene.peer.send_all(b"data")
        assert await scene.transport.receive() == b"data"


async def test_a_writer_that_waits_is_not_harmed_where_the_reader_task_reads_instead() -> None:
    async with open_scene() as scene:
        while scene.transport.send_nowait([b"x" * 65536]):
            pass
        writer_waits = True

        async def write() -> None:
            nonlocal writer_waits
            while not scene.transport.send_nowait([b"x"]):
                await scene.transport.wait_until_writable()
            writer_waits = False

        scene.nursery.start_soon(write)
        await scene.receive()
        scene.reading.reclaim()
        await trio.testing.wait_all_tasks_blocked()
        assert writer_waits
        while writer_waits:
            await scene.peer.receive_some()


# The reader task ends while it stands by…


@pytest.mark.parametrize("receiving", [False, True])
async def test_a_reader_task_that_is_cancelled_stands_by_no_longer(receiving: bool) -> None:
    async with open_scene() as scene:
        scene.reading.recall()
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(RELIEF / 2) as scope:
            if receiving:
                scene.nursery.start_soon(scene.receive)
            await scene.reading.stand_by()
        assert scope.cancelled_caught
        assert scene.reading.reads is READER
        await scene.transport.aclose_forcefully()
        await trio.sleep(1)  # neither a receiver nor the watchdog resumes it
        assert scene.received == [None] * receiving
        assert scene.news == [None]
        assert scene.raised == []


# No byte is lost…


class BeforeStep(trio.abc.Instrument):
    """Does something before the k-th step of the task that uses it, from `__enter__` on."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        self.steps_left = step
        self.do = do

    def __enter__(self) -> Self:
        self.task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *exc: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps_left -= 1
            if self.steps_left == 0:
                self.do()


async def look_soon(scene: Scene) -> None:
    """Have the next receivers look before they wait."""
    for _ in range(FIRST_PAUSE + 1):
        await scene.peer.send_all(b"data")
        assert await scene.reading.receive() == b"data"
        scene.leave()


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("name", ["reclaim", "cancel"])
async def test_whatever_interrupts_a_receiver_at_any_step_no_byte_is_lost(
    name: str, looks: bool, is_there: bool
) -> None:
    step = 0
    interrupted = True
    while interrupted:
        step += 1
        async with open_scene() as scene:
            if looks:
                await look_soon(scene)
            if is_there:
                await scene.peer.send_all(b"data")
            else:
                scene.nursery.start_soon(scene.peer.send_all, b"data")
            data: bytes | None = None
            scope = trio.CancelScope()
            does = scope.cancel if name == "cancel" else scene.reading.reclaim
            with scope, BeforeStep(step, does) as interruption:
                data = await scene.reading.receive()
            interrupted = interruption.steps_left <= 0
            if data is None:
                assert scene.reading.reads is READER
                await trio.testing.wait_all_tasks_blocked()
                assert scene.news == [None]
                data = await scene.transport.receive()
            else:
                assert scene.reading.reads is RECEIVER
                assert scene.news == []
            assert data == b"data"
    assert step > 1


# Looks…


async def steps_of_a_wait(scene: Scene) -> int:
    """How many steps a receiver takes for data that comes after it began to wait.

    One brings it to the wait, and one back. A look takes a further one.
    """
    steps = 0

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += task.name.endswith("_receive")

    counting = Steps()
    trio.lowlevel.add_instrument(counting)
    await scene.receive()
    await scene.peer.send_all(b"data")
    await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(counting)
    assert scene.received.pop() == b"data"
    scene.leave()
    return steps


async def waits_until_a_vain_look(scene: Scene) -> int:
    waits = 0
    while await steps_of_a_wait(scene) == 2:
        waits += 1
    return waits


async def test_the_first_waits_begin_without_a_look() -> None:
    async with open_scene() as scene:
        assert await waits_until_a_vain_look(scene) == FIRST_PAUSE


async def test_vain_looks_become_rare_until_one_finds_something() -> None:
    async with open_scene() as scene:
        pauses = [await waits_until_a_vain_look(scene) for _ in range(7)]
        assert pauses == [FIRST_PAUSE, FIRST_PAUSE, 7, 15, 31, LONGEST_PAUSE, LONGEST_PAUSE]
        for _ in range(LONGEST_PAUSE + 1):
            await scene.peer.send_all(b"data")
            await scene.receive()
            scene.leave()
        pauses = [await waits_until_a_vain_look(scene) for _ in range(5)]
        assert pauses == [0, 0, 1, 3, 7]  # the first look in vain is forgiven


async def test_a_look_lets_other_tasks_run_and_then_finds_what_is_there() -> None:
    async with open_scene() as scene:
        await look_soon(scene)
        # What comes in the turn that it gives away is found without a wait for the socket.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(scene.peer.send_all, b"in time"))
            with trio.testing.assert_checkpoints():
                assert await scene.reading.receive() == b"in time"
        scene.leave()
        assert scene.news == []
