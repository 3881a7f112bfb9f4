"""Several processes on one port, and the supervisor that keeps them: ``trio-ws serve --workers``.

The supervisor holds the sockets, and each worker inherits them. So there is one queue of clients,
from which a worker takes one whenever it has time for it. What is in the queue is no worker's own:
a worker that leaves, or dies, leaves it to the others. The workers share nothing else.

The first worker that is ready makes the sockets listen. From then on clients wait while no worker
runs, and are not refused, until the supervisor itself is asked to stop.

A worker tells its supervisor over a `line` when it accepts connections. The supervisor sends a
worker SIGTERM, or says more over the line: its successor listens, or there is no time for a drain.
Each learns from the kernel when the other is gone. `serving` runs in a worker.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, aclosing, suppress
from math import inf
from typing import Any, Final, TypeAlias, final

import trio

from .._backoff import Backoff
from .._nursery import open_bare_nursery
from .._reasons import reason_of
from .boards import TABLE, Board, Boards
from .exits import DONE, FAILED, INTERRUPTED, SIGNALLED, CommandFailed
from .line import HURRY, LEAVE, PROBE, READY, Line
from .serving import STOP_SIGNALS, announce
from .systemd import ServiceManager

logger = logging.getLogger("trio_ws.serve")

#: An environment variable for the application: the number of its worker, from 1. A restarted
#: worker keeps the number.
WORKER_VARIABLE: Final = "TRIO_WS_WORKER"

#: How many seconds the application gets to clean up, after `grace_period` and `close_timeout`. A
#: worker that takes longer is killed.
MARGIN: Final = 5.0

#: How many seconds a worker gets to become ready by default: enough to fill caches from a database,
#: and no longer than an operator waits for a service that does not start.
START_TIMEOUT: Final = 60.0

#: How many seconds to wait before the next try if the system could not start a process.
RETRY_DELAY: Final = 0.5

#: Exit statuses that are no failure. A worker that gets the signal before it has a handler for it
#: is ended by the signal.
_GOOD_ORDER: Final = {DONE, -signal.SIGTERM, -signal.SIGINT, INTERRUPTED}


@final
class Worker:
    """One worker process, from its start to its end."""

    def __init__(
        self, number: int, process: trio.Process, line: Line, board: Board | None = None
    ) -> None:
        self.number = number
        #: Where it writes its numbers, if anybody wants them.
        self.board = board
        #: How many seconds it was ready, once it has ended; below 0 if it never was.
        self.lived = -inf
        self._process = process
        self._line = line
        self._ready_at = inf
        self._settled = trio.Event()
        self._ended = trio.Event()
        #: Whether it was stopped because it took too long to become ready.
        self.was_late = False
        self._is_leaving = False
        #: Whether it has answered each `probe`.
        self._answers = True

    def __str__(self) -> str:
        return f"worker {self.number} (process {self._process.pid})"

    async def follow(self) -> None:
        """Wait until it ends, and note when it becomes ready. Cancelling this kills it."""
        try:
            async with self._line, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                await self._process.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                self.kill()
                await self._process.wait()
            self.lived = trio.current_time() - self._ready_at
            self._settled.set()
            self._ended.set()

    async def _listen(self) -> None:
        async with aclosing(self._line.messages()) as messages:
            async for word, _ in messages:
                self._answers = True  # whatever it says
                if word == READY:
                    self._ready_at = trio.current_time()
                    self._settled.set()

    async def wait_ready(self) -> bool:
        """Wait until it is ready. Returns false if it ended instead."""
        await self._settled.wait()
        return not self.has_ended

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        await self._ended.wait()

    @property
    def how_it_ended(self) -> str:
        if self.was_late:
            return "was not ready in time"
        when = "" if self.lived >= 0 else " before it was ready"
        if self.status < 0:
            return f"was ended by signal {-self.status} ({signal.strsignal(-self.status)}){when}"
        return f"ended with status {self.status}{when}"

    @property
    def status(self) -> int:
        """Its exit status; a signal's number is negative."""
        status = self._process.returncode
        assert status is not None  # it has ended
        return status

    def ask_to_stop(self) -> None:
        self._process.terminate()

    async def ask_to_leave(self) -> None:
        """Ask it to stop, and to lose no client, because others serve in its place."""
        self._is_leaving = True
        if self._ready_at < inf:
            await self._line.say(LEAVE)
        else:  # it may not read yet
            self.ask_to_stop()

    async def hurry(self) -> None:
        """Ask it to stop without a drain, or to cut that short."""
        await self._line.say(HURRY)

    @property
    def is_alive(self) -> bool:
        """Whether it serves: it is ready, is not asked to leave, and has answered so far."""
        return self._ready_at < inf and self._answers and not self._is_leaving

    async def probe(self) -> None:
        """Ask whether its event loop runs. It is not `is_alive` until it has answered."""
        if self._ready_at < inf and self._answers:  # else the question would only wait, too
            self._answers = False
            await self._line.say(PROBE)

    def kill(self) -> None:
        self._process.kill()


@final
class Crew:
    """The running workers of one supervisor, and how to start and stop them.

    Args:
        arguments: the arguments of ``trio-ws serve``.
        sockets: those that the workers inherit. They are closed when the workers are asked to stop.
        manager: is told how the service is.
        patience: how many seconds a worker gets to stop, before it is killed.
        open_timeout: how many seconds more it gets where others serve in its place, so that clients
            may finish the opening handshake.
        drains: whether it begins that with a drain.
        boards: of the workers' numbers, if anybody wants them.
        lent: whether the sockets are another process's, which has others serve when all have ended.
        start_timeout: how many seconds a worker gets to become ready, before it is stopped.
        foreground: whether the workers may use the terminal. Ctrl-C then reaches them too.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        sockets: Sequence[socket.socket],
        *,
        patience: float,
        manager: ServiceManager | None = None,
        open_timeout: float = 0.0,
        drains: bool = False,
        boards: Boards | None = None,
        lent: bool = False,
        start_timeout: float = inf,
        foreground: bool = False,
    ) -> None:
        self._arguments = arguments
        self._sockets = sockets
        self.manager = manager or ServiceManager()
        self._patience = patience
        self._open_timeout = open_timeout
        self._drains = drains
        self._boards = boards
        self._lent = lent
        self.start_timeout = start_timeout
        self._background: dict[str, Any] = {"stdin": subprocess.DEVNULL, "process_group": 0}
        if foreground:
            self._background.clear()
        #: The workers that run, the oldest first.
        self.workers: dict[Worker, None] = {}
        self._hull: trio.Nursery
        self._ask_for_restart, self.restarts = trio.open_memory_channel[None](1)
        self.forced_by = 0
        #: How many workers are to be alive, for the service to count as alive.
        self.promised = 0

    async def start(self, number: int) -> Worker:
        """Start a process, without waiting until it is ready.

        Raises:
            CommandFailed: the system cannot start one.
        """
        sockets = [sock.fileno() for sock in self._sockets]
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as unless_started:
            unless_started.enter_context(ours)
            try:
                board = self._put_up_board(unless_started)
                given = [] if board is None else [board.descriptor]
                process = await trio.lowlevel.open_process(
                    [
                        *(sys.executable, "-m", "trio_ws", "serve"),
                        *("--as-worker", ",".join(map(str, [theirs.fileno(), *sockets]))),
                        *(f"--metrics-board={descriptor}:{TABLE}" for descriptor in given),
                        *self._arguments,
                    ],
                    env={**os.environ, WORKER_VARIABLE: str(number)},
                    pass_fds=(theirs.fileno(), *sockets, *given),
                    **self._background,
                )
            except OSError as exc:
                raise CommandFailed(f"cannot start worker {number}: {reason_of(exc)}") from None
            unless_started.pop_all()
        worker = Worker(number, process, Line(ours), board)
        self.workers[worker] = None
        self._hull.start_soon(self._follow, worker)
        return worker

    def _put_up_board(self, unless_started: ExitStack) -> Board | None:
        if self._boards is None:
            return None
        board = self._boards.put_up()
        unless_started.callback(self._boards.take_down, board)
        return board

    async def _follow(self, worker: Worker) -> None:
        try:
            async with open_bare_nursery() as nursery:
                nursery.start_soon(self._expect_ready, worker)
                await worker.follow()
                nursery.cancel_scope.cancel()
        finally:
            del self.workers[worker]
            if self._boards is not None and worker.board is not None:
                self._boards.take_down(worker.board)

    async def _expect_ready(self, worker: Worker) -> None:
        with trio.move_on_after(self.start_timeout):
            await worker.wait_ready()
            return
        worker.was_late = True
        logger.error("%s was not ready within %g s: stopping it", worker, self.start_timeout)
        await self.stop([worker])

    def dismiss(self, worker: Worker) -> None:
        """Begin to stop a worker that has a successor, without waiting until it has ended."""
        logger.debug("stopping %s", worker)
        self._hull.start_soon(self._dismiss, worker)

    async def _dismiss(self, worker: Worker) -> None:
        await self.stop([worker], leave=True)

    async def stop(self, workers: Iterable[Worker], *, leave: bool = False) -> bool:
        """Ask these to stop, and kill those that do not. Returns whether all stopped gracefully.

        With `leave`, others serve in their place, so that they lose no client.
        """
        workers = list(workers)
        for worker in workers:
            if leave:
                await worker.ask_to_leave()
            else:
                worker.ask_to_stop()
        patience = self._patience + (self._open_timeout if leave else 0)
        with trio.move_on_after(patience):
            for worker in workers:
                await worker.wait_ended()
        late = [worker for worker in workers if not worker.has_ended]
        for worker in late:
            logger.error("%s did not stop in %g s: killing it", worker, patience)
            worker.kill()
            await worker.wait_ended()
        return all(worker.status in _GOOD_ORDER for worker in workers)

    # Until a signal…

    async def run(self, tend: Tend, restart_on: Sequence[signal.Signals] = ()) -> int:
        """Run `tend` until a signal asks to stop; then stop all workers. Returns the exit code.

        Args:
            tend: starts and replaces workers.
            restart_on: signals that ask for new workers. `tend` receives them from `restarts`.

        Raises:
            CommandFailed: `tend` raised it. No worker is left running.
        """
        with trio.open_signal_receiver(*STOP_SIGNALS, *restart_on) as signals:
            async with open_bare_nursery() as self._hull:
                self._hull.start_soon(self._show_life)
                try:
                    async with open_bare_nursery() as tending:
                        tending.start_soon(tend, self)
                        try:
                            await self._wait_for_stop(signals)
                        finally:
                            tending.cancel_scope.cancel()
                    return await self._stop_all(signals)
                finally:
                    self._hull.cancel_scope.cancel()

    async def _wait_for_stop(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number in STOP_SIGNALS:
                logger.info("%s: stopping all workers", signal.Signals(number).name)
                self.manager.stopping()
                return
            with suppress(trio.WouldBlock):  # a restart is due already
                self._ask_for_restart.send_nowait(None)

    async def _show_life(self) -> None:
        """Tell the service manager that the service lives, for as long as it does."""
        while self.manager.watchdog < inf:
            await trio.sleep(self.manager.watchdog / 2)
            alive = sum(worker.is_alive for worker in self.workers)
            if alive >= self.promised or self.manager.knows_of_stop:
                self.manager.alive()
            for worker in list(self.workers):
                await worker.probe()

    async def _stop_all(self, signals: AsyncIterator[int]) -> int:
        for sock in self._sockets:  # or clients would wait there for nobody
            sock.close()
        async with open_bare_nursery() as nursery:
            nursery.start_soon(self._obey_further, signals)
            in_good_order = await self.stop(self.workers, leave=self._lent and not self._drains)
            nursery.cancel_scope.cancel()
        if self.forced_by:
            return SIGNALLED + self.forced_by
        return DONE if in_good_order else FAILED

    async def _obey_further(self, signals: AsyncIterator[int]) -> None:
        if self._drains:
            number = await _next_stop(signals)
            logger.warning("%s again: not draining any longer", number.name)
            for worker in list(self.workers):
                await worker.hurry()
        while True:
            number = await _next_stop(signals)
            logger.warning("%s again: killing the workers", number.name)
            self.forced_by = number
            for worker in list(self.workers):
                worker.kill()


async def _next_stop(signals: AsyncIterator[int]) -> signal.Signals:
    while (number := await anext(signals)) not in STOP_SIGNALS:
        pass
    return signal.Signals(number)


#: Keeps the workers of a crew running. It is cancelled when a signal asks to stop.
Tend: TypeAlias = Callable[[Crew], Awaitable[None]]


# ---------------------------------------------------------------------------
# A number of workers that stays the same
# ---------------------------------------------------------------------------


@final
class _Place:
    """One of the N places, and the worker that fills it now.

    Two tasks put workers in a place: one when a worker has ended, one at a restart. A lock would be
    held for ever by a task whose new worker never becomes ready. So each task looks, when it has
    its new worker, at which one is in the place by then.
    """

    def __init__(self, worker: Worker) -> None:
        self.number = worker.number
        self.worker = worker


def keep_workers(count: int, where: str) -> Tend:
    """Start `count` workers, and replace those that end. On SIGHUP, replace all, one by one."""

    async def tend(crew: Crew) -> None:
        # The first one goes ahead, so that an error in the application is shown once.
        first = await crew.start(1)
        if not await first.wait_ready():
            raise CommandFailed(
                f"the first worker {first.how_it_ended}; no more are started",
                first.status if first.status > 0 else FAILED,
            )
        workers = [first, *[await crew.start(number) for number in range(2, count + 1)]]
        places = [_Place(worker) for worker in workers]
        crew.promised = count
        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(_keep_filled, crew, place)
            nursery.start_soon(_announce, crew, workers, f"{where} with {count} workers")
            under_way = trio.CancelScope()
            async for _ in crew.restarts:
                # The restart under way may wait for a worker that is never ready, or that runs code
                # which has changed since.
                under_way.cancel()
                under_way = trio.CancelScope()
                logger.info("SIGHUP: replacing the workers one by one")
                nursery.start_soon(_replace_all, crew, places, under_way)

    return tend


async def _announce(crew: Crew, workers: Iterable[Worker], where: str) -> None:
    for worker in workers:
        await worker.wait_ready()
    announce(where, crew.manager)


async def _keep_filled(crew: Crew, place: _Place) -> None:
    backoff = make_backoff()
    while True:
        gone = place.worker
        await gone.wait_ended()
        if place.worker is not gone:
            continue  # a restart has put its successor there
        delay = backoff.delay(gone.lived)
        logger.error("%s %s; another starts in %g s", gone, gone.how_it_ended, delay)
        await trio.sleep(delay)
        another = await _start_somehow(crew, place.number)
        if place.worker is gone:
            place.worker = another
        else:  # a restart has replaced it in the meantime
            crew.dismiss(another)


async def _start_somehow(crew: Crew, number: int) -> Worker:
    while True:
        try:
            return await crew.start(number)
        except CommandFailed as exc:  # raised, it would stop the other workers
            logger.warning("%s; trying again in %g s", exc, RETRY_DELAY)
            await trio.sleep(RETRY_DELAY)


def make_backoff() -> Backoff:
    """The delays before a worker that ended is started again.

    One that was ready for ten seconds can work, so its successor is started at once.
    """
    return Backoff(first=0.5, longest=30.0, steady=10.0, at_once=True)


async def _replace_all(crew: Crew, places: Iterable[_Place], scope: trio.CancelScope) -> None:
    """Start each successor before its predecessor is stopped: some worker always listens."""
    with crew.manager.reloading(), scope:
        for place in places:
            successor = await _start_successor(crew, place.number)
            if successor is None:
                return
            predecessor, place.worker = place.worker, successor
            crew.dismiss(predecessor)
            await predecessor.wait_ended()
        logger.info("all workers are replaced")


async def _start_successor(crew: Crew, number: int) -> Worker | None:
    """Wait for a new worker that is ready. If it ends instead, log that and return `None`."""
    successor = await _start_somehow(crew, number)
    try:
        if await successor.wait_ready():
            return successor
    except trio.Cancelled:
        crew.dismiss(successor)
        raise
    logger.error("the new %s %s; the running workers stay", successor, successor.how_it_ended)
    return None
