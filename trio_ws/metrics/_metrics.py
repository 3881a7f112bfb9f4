"""The block in which things are measured, and how the numbers get out of it.

This module owns how often the numbers are brought up to date, and the task that does it. That task
also notices when the event loop is late.

The numbers are in two places. The meter has those of this very moment, but to read all connections
takes many steps. So what the last reading found is kept in one piece, for those who cannot wait: a
thread of prometheus-client's, or the supervisor of several processes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from math import inf
from typing import TYPE_CHECKING, Final, final

import trio

from .._http.values import Request, Response
from .._metering import LOOP_LAG, METER, Meter, Numbers, no_numbers
from .._nursery import open_bare_nursery, protected_context
from ._exposition import page_of, prometheus

if TYPE_CHECKING:
    from ._prometheus import NumbersCollector

#: How many seconds pass between two looks at the clock, and between two readings if these are
#: quick.
PACE: Final = 0.1

#: After a reading, so many times what it took must pass: readings take at most half a hundredth of
#: the processor's time, however many connections there are.
REST: Final = 200


@final
class Metrics:
    """The numbers of the servers and broadcasts of this run of trio; `open_metrics` gives it.

    They can be had in two ways. `page` is an endpoint. `collector` is for a registry of
    prometheus-client, which other metrics of the program may be in.
    """

    def __init__(self, meter: Meter, publish: Callable[[Numbers], object] | None) -> None:
        self._meter = meter
        self._publish = publish
        self._reading = trio.Lock()
        self._numbers: Numbers = no_numbers()
        self._next_at = -inf

    @property
    def collector(self) -> NumbersCollector:
        """For ``prometheus_client.REGISTRY.register(metrics.collector)``, or another registry.

        It may be asked in any thread, and never waits. What it tells was true a tenth of a second
        ago; with more than a thousand connections, up to two seconds for each ten thousand.
        """
        collector: NumbersCollector = prometheus().NumbersCollector(lambda: self._numbers)
        return collector

    async def page(self, request: Request) -> Response:
        """An endpoint for a `Router`: ``router.get("/metrics")(metrics.page)``.

        It tells the numbers of this moment, in Prometheus' text format. Who may ask for them is up
        to you: the port is that of your users.
        """
        return await page_of(await self._read())

    async def _read(self) -> Numbers:
        # One after the other: the older of two readings must not be published last.
        async with self._reading:
            numbers = self._numbers = await self._meter.measure()
            self._next_at = trio.current_time() + REST * self._meter.work
            if self._publish is not None:
                self._publish(numbers)
        return numbers

    async def _run(self) -> None:
        while True:
            due = trio.current_time() + PACE
            await trio.sleep_until(due)
            self._meter.observe(LOOP_LAG, trio.current_time() - due)
            if trio.current_time() >= self._next_at:
                await self._read()

    def __repr__(self) -> str:
        return f"<Metrics {'on' if METER.get() is self._meter else 'off'}>"


@protected_context
async def measuring(publish: Callable[[Numbers], object] | None) -> AsyncGenerator[Metrics, None]:
    """`open_metrics`, with a function that is given the numbers whenever they are read.

    It is given the last ones when all is over.
    """
    if METER.get() is not None:
        raise RuntimeError("metrics are on already: one open_metrics() is for the whole program")
    meter = Meter()
    metrics = Metrics(meter, publish)
    METER.set(meter)
    try:
        async with open_bare_nursery() as nursery:
            nursery.start_soon(metrics._run)
            try:
                yield metrics
            finally:
                nursery.cancel_scope.cancel()
    finally:
        METER.set(None)
        with trio.CancelScope(shield=True):
            await metrics._read()


@protected_context
async def open_metrics() -> AsyncGenerator[Metrics, None]:
    """Measure the servers and broadcasts that are opened within the block::

        async with trio_ws.metrics.open_metrics() as metrics:
            prometheus_client.REGISTRY.register(metrics.collector)
            await serve_websocket(handler, "localhost", 8765)

    All tasks of this run of trio are within it, whoever started them. So it belongs at the top of
    the program, and there is one at a time. What was opened before it is not measured, and neither
    are clients.

    Measuring takes less than a hundredth of the processor's time. Nothing is waited for at the end.

    Raises:
        ImportError: prometheus-client is not installed.
        RuntimeError: metrics are on already.
    """
    prometheus()  # now, rather than while everybody waits for the first page
    async with measuring(None) as metrics:
        yield metrics
