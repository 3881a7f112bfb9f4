"""The load: connections are opened, messages sent and answers awaited, and all of it counted.

Latency counts from the time at which a message was due, by a schedule that waits for nobody. If a
server stalls for a second, all messages that were due in that second are late, and count as late. A
load that waits for the server would send none of them, and see one late message (Gil Tene calls
that coordinated omission).

This module owns the phases of a run. It knows no terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from math import inf
from typing import Final, TypeAlias, final

import trio

from ..._connection.websocket import WebSocket
from ..._errors import HandshakeError
from ..._http.values import ConnectionRejected
from .links import Common, InFlightLink, Link, PacedLink, Unfinished
from .plan import Messages, Mode, Plan
from .tally import Tally

#: How many messages are sent in a row while the load is late. In between, it takes what has come.
_BURST: Final = 32

#: Opens a connection that receives text as bytes.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[WebSocket]]


@final
class _Visit:
    """One connection, from before its opening handshake until after its closing one."""

    def __init__(self) -> None:
        #: The second scope is inside the first one. Leaving it alone closes with 1000.
        self.whole, self.receiving = trio.CancelScope(), trio.CancelScope()
        self.is_open = False
        self.is_over = False

    def end(self) -> None:
        self.is_over = True
        (self.receiving if self.is_open else self.whole).cancel()


@final
class Load:
    """A run, from opening the first connection to closing the last one.

    Args:
        plan: what is to happen.
        connect: opens a connection.
        wake_after: is told, before this waits for the next message, in how many seconds that is
            due. It may have trio look at its clock then, see `alarm`.

    Attributes:
        tally: what has happened so far.
        phase: what goes on now.
        opened: how many connections were opened.
        compressed: how many of them agreed on permessage-deflate.
        interrupted: whether `stop` was called.
    """

    def __init__(
        self,
        plan: Plan,
        connect: Connect,
        *,
        wake_after: Callable[[float], object] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.tally = Tally()
        self.phase = "opening"
        self.opened = self.compressed = 0
        self.interrupted = False
        self._connect = connect
        self._wake_after = wake_after
        self._unfinished = Unfinished()
        self._slots = trio.CapacityLimiter(plan.open_at_once)
        self._visits = [_Visit() for _ in range(plan.connections)]
        self._unsettled = plan.connections
        self._all_settled = trio.Event()
        self._links: list[Link] = []
        self._living = 0
        #: All that ends early if the run does.
        self._active = trio.CancelScope()
        self._common: Common
        self._start = self._ran_before = inf
        self._posted = 0

    def stop(self) -> None:
        """End the run early, as if its time were over."""
        self.interrupted = True
        self._active.cancel()

    async def run(self) -> None:
        """All of it. If it is cancelled, connections are closed with 1001.

        It ends early if no connection could be opened, or when the last one is lost. Closing takes
        at most the `close_timeout` of the connections.
        """
        async with trio.open_nursery() as nursery:
            self._common = Common(
                self.plan, Messages(self.plan), self.tally, self._unfinished, nursery
            )
            with self._active:
                for visit in self._visits:
                    nursery.start_soon(self._visit, visit)
                await self._all_settled.wait()
                if self._living:
                    await self._send()
            self._stop_measuring()
            self.phase = "waiting for answers"
            with trio.move_on_after(self.plan.drain):
                await self._unfinished.wait_none()
            self.phase = "closing"
            for link in self._links:
                link.give_up()
            for visit in self._visits:
                visit.end()

    # Connections…

    async def _visit(self, visit: _Visit) -> None:
        with visit.whole:
            async with AsyncExitStack() as stack:
                async with self._slots:
                    ws = await self._open(stack)
                if ws is None:
                    self._settle()
                    return
                visit.is_open = True
                link = self._new_link(ws)
                self._settle()
                with visit.receiving:
                    await link.receive()
                if not visit.is_over:
                    await self._lose(link)

    async def _open(self, stack: AsyncExitStack) -> WebSocket | None:
        began = trio.current_time()
        try:
            ws = await stack.enter_async_context(self._connect())
        except ConnectionRejected as exc:  # each may have a body of its own
            self.tally.refused[f"HTTP status {exc.response.status}"] += 1
        except HandshakeError as exc:
            self.tally.refused[str(exc)] += 1
        else:
            self.tally.opening.record(trio.current_time() - began)
            return ws
        return None

    def _settle(self) -> None:
        self._unsettled -= 1
        if not self._unsettled:
            self._all_settled.set()

    def _new_link(self, ws: WebSocket) -> Link:
        kind = InFlightLink if self.plan.rate is None else PacedLink
        link = kind(ws, self._common)
        self.opened += 1
        self.compressed += "Sec-WebSocket-Extensions" in ws.response.headers
        self._living += 1
        self._links.append(link)
        return link

    async def _lose(self, link: Link) -> None:
        link.give_up()
        self._living -= 1
        if not self._living and not self._unsettled:
            self._active.cancel()
        self.tally.lost[str(await link.ws.wait_closed())] += 1

    # Messages…

    async def _send(self) -> None:
        tally = self.tally
        self._start = trio.current_time()
        tally.begin = self._start + self.plan.warmup
        tally.until = tally.begin + self.plan.seconds
        self.phase = "warming up"
        if self.plan.mode is not Mode.RECEIVE:
            await self._begin()
        await self._send_until(tally.begin)
        self.phase = "measuring"
        self._ran_before = time.process_time()
        await self._send_until(tally.until)

    def _stop_measuring(self) -> None:
        self.tally.until = min(self.tally.until, trio.current_time())
        if self._ran_before < inf:
            self.tally.processor = time.process_time() - self._ran_before

    async def _begin(self) -> None:
        for place, link in enumerate(self._links):
            link.begin(self._start, place, len(self._links))
            await trio.lowlevel.checkpoint()

    async def _send_until(self, end: float) -> None:
        if self.plan.rate is not None and self.plan.mode is not Mode.RECEIVE:
            await self._pace(end, self.plan.rate)
        await trio.sleep_until(end)

    async def _pace(self, end: float, rate: float) -> None:
        links = self._links
        while (due := self._start + self._posted / rate) < end:
            now = trio.current_time()
            if due > now:
                self._wake_after(due - now)
                await trio.sleep_until(due)
                now = trio.current_time()
            elif not self._posted % _BURST:
                await trio.lowlevel.checkpoint()
                now = trio.current_time()
            links[self._posted % len(links)].post(due, now)
            self._posted += 1
