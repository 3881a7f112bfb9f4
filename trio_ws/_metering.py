"""What is counted while metrics are on: each number there is, what it means, and where it is kept.

This module owns the table of metrics and the meter, which has their numbers in one row: a process
can then copy them in one piece, and the rows of several processes are added up place by place. It
knows neither Prometheus nor anything that is measured.

Most of what is measured is counted anyway, by each connection and each broadcast. Those are read
now and then, as *sources*, and cost nothing in between. The meter itself counts only what would
be lost otherwise: how long something took, and what has ended.
"""

from __future__ import annotations

import enum
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, product
from operator import add as plus
from typing import Final, TypeAlias, final

import trio
from trio.lowlevel import RunVar

#: All numbers at one moment, each at the place that the table gives it.
Numbers: TypeAlias = list[float]


class Kind(enum.Enum):
    """What may be done with a number."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@final
class Metric:
    """One metric, and its places in the row of numbers.

    Args:
        kind: counter, gauge or histogram. A histogram has a place for each of its buckets, one for
            what is above the last bound, and one for the sum.
        name: as Prometheus shows it, without the ``_total`` of counters.
        what: what it tells.
        labels: each label, and all of its values: what is unbounded is no label.
        bounds: the upper bounds of the buckets of a histogram.
    """

    def __init__(
        self,
        kind: Kind,
        name: str,
        what: str,
        *,
        labels: dict[str, Sequence[str]] | None = None,
        bounds: Sequence[float] = (),
    ) -> None:
        self.kind: Kind = kind
        self.name: str = name
        self.what: str = what
        self.labels: dict[str, Sequence[str]] = labels or {}
        self.bounds: tuple[float, ...] = tuple(bounds)
        #: Its first place.
        self.start: int = sum(metric.size for metric in METRICS)
        #: The place of each combination of label values.
        self.places: dict[tuple[str, ...], int] = {
            values: self.start + number
            for number, values in enumerate(product(*self.labels.values()))
        }
        self.size: int = len(self.bounds) + 2 if self.bounds else len(self.places)
        METRICS.append(self)


#: The table, in the order of the places.
METRICS: Final[list[Metric]] = []


def _counter(name: str, what: str, **labels: Sequence[str]) -> Metric:
    return Metric(Kind.COUNTER, f"trio_ws_{name}", what, labels=labels)


def _gauge(name: str, what: str) -> Metric:
    return Metric(Kind.GAUGE, f"trio_ws_{name}", what)


def _histogram(name: str, what: str, bounds: Sequence[float]) -> Metric:
    return Metric(Kind.HISTOGRAM, f"trio_ws_{name}", what, bounds=bounds)


# ---------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------

#: The statuses that a handshake is answered with by the library, or by many an application.
_STATUSES: Final = (
    101,
    301,
    302,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    408,
    421,
    426,
    429,
    431,
    500,
    503,
)

#: The label of each status that HTTP has, and of no answer at all.
STATUS_LABELS: Final = {
    0: "none",
    **{
        status: str(status) if status in _STATUSES else f"{status // 100}xx"
        for status in range(100, 600)
    },
}


def status_label(status: int) -> str:
    """The label of a status; 0 is no answer at all."""
    return STATUS_LABELS.get(status, "other")


#: The close codes that RFC 6455 and the registry have a meaning for.
_CODES: Final = (*range(1000, 1004), *range(1005, 1016))

#: The label of each close code that a peer may send.
_CODE_LABELS: Final = {
    **{code: str(code) for code in _CODES},
    **dict.fromkeys(range(3000, 4000), "3xxx"),
    **dict.fromkeys(range(4000, 5000), "4xxx"),
}


def code_label(code: int) -> str:
    """The label of a close code."""
    return _CODE_LABELS.get(code, "other")


#: Who began the end of a connection.
BY_US, BY_PEER = "us", "peer"

# ---------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------

#: From what only a busy program makes of a wait to what a user takes for an outage, in seconds.
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Handlers live as long as their connections: from a failed attempt to a day.
_LONG: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

CONNECTIONS = _gauge("connections", "Open WebSocket connections.")
OPENED = _counter("connections_opened", "WebSocket connections that were opened.")
CLOSED = _counter(
    "connections_closed",
    "WebSocket connections that ended, by their close code and who began the end. 1006 is an end "
    "without a Close frame.",
    code=[*dict.fromkeys(_CODE_LABELS.values()), "other"],
    by=[BY_US, BY_PEER],
)
HANDSHAKES_OPEN = _gauge("handshakes_open", "Connections in the opening handshake.")
HANDSHAKES = _counter(
    "handshakes",
    "Opening handshakes that are over, by the status of the answer. 'none' is no answer: the "
    "client left, or was too slow.",
    status=[*dict.fromkeys(STATUS_LABELS.values()), "other"],
)
HTTP_CONNECTIONS = _gauge("http_connections", "Open connections that have only spoken HTTP so far.")
HTTP_REQUESTS = _counter("http_requests", "HTTP requests that a Router was asked for.")
MESSAGES_RECEIVED = _counter("messages_received", "Messages received from clients.")
MESSAGES_SENT = _counter("messages_sent", "Messages sent to clients, published ones included.")
BYTES_RECEIVED = _counter("received_bytes", "Bytes received from clients, of frames, in bytes.")
BYTES_SENT = _counter("sent_bytes", "Bytes written to the sockets of clients, of frames, in bytes.")
RECEIVE_QUEUE_MESSAGES = _gauge(
    "receive_queue_messages", "Messages that were received and that no handler has taken yet."
)
RECEIVE_QUEUE_BYTES = _gauge("receive_queue_bytes", "What these take in memory, in bytes.")
SEND_QUEUE_BYTES = _gauge(
    "send_queue_bytes",
    "Bytes of frames that wait until sockets take them, published ones included.",
)
BACKLOGGED = _gauge("backlogged_connections", "Open connections with bytes in that queue.")
SEND_WAIT = _histogram(
    "send_wait_seconds",
    "How long send() waited for room or for its turn. Most calls wait for neither, and are not "
    "among these.",
    _SHORT,
)
PING_ROUND_TRIP = _histogram(
    "ping_round_trip_seconds", "From a ping to its pong, those of keepalive included.", _SHORT
)
HANDLER_TIME = _histogram(
    "handler_seconds", "How long handlers ran: as a rule as long as their connections.", _LONG
)
HANDLER_ERRORS = _counter(
    "handler_errors", "Handlers and endpoints that ended with an exception of their own."
)
LOOP_LAG = _histogram(
    "event_loop_lag_seconds",
    "By how much a task was late that looks at the clock ten times a second: how long a message "
    "waits for its task to run.",
    _SHORT,
)
SUBSCRIBERS = _gauge("broadcast_subscribers", "Connections that are subscribed to anything.")
TOPICS = _gauge("broadcast_topics", "Topics that have subscribers or a history.")
PUBLISHED = _counter(
    "broadcast_published", "Messages published, those of other processes included."
)
DELIVERED = _counter(
    "broadcast_delivered", "How often a message was handed to a subscriber, to be sent or to wait."
)
DELIVERY_TIME = _histogram(
    "broadcast_delivery_seconds",
    "From publish() until a subscriber's message is written to its socket, or received from its "
    "channel.",
    _SHORT,
)
BROADCAST_QUEUE_MESSAGES = _gauge(
    "broadcast_queue_messages", "Published messages that wait for slow connections."
)
DROPPED = _counter(
    "broadcast_dropped",
    "Messages that a slow subscriber did not get, by the policy that dropped them.",
    policy=["drop_oldest", "drop_newest", "latest"],
)
REPLACED = _counter(
    "broadcast_replaced",
    "Messages that a newer one with the same key replaced before they were sent.",
)
DISCONNECTED = _counter(
    "broadcast_disconnected", "Subscribers that were disconnected because they were too slow."
)
BACKPLANES_CONNECTED = _gauge("backplanes_connected", "Backplanes that reach their broker.")
BACKPLANES = _gauge("backplanes", "Backplanes that should.")
BACKPLANE_QUEUE_MESSAGES = _gauge(
    "backplane_queue_messages", "Messages that wait on their way to a broker."
)
BACKPLANE_SENT = _counter("backplane_sent", "Messages that a broker has accepted.")
BACKPLANE_RECEIVED = _counter(
    "backplane_received", "Messages of other processes that were delivered here."
)
BACKPLANE_LOST = _counter(
    "backplane_lost",
    "Messages that did not get to the other processes, by why: the broker refused them, or the "
    "queue was full.",
    why=["refused", "dropped"],
)
BACKPLANE_GAPS = _counter(
    "backplane_gaps", "How often messages of other processes may have been missed."
)

#: How many numbers there are.
SIZE: Final = sum(metric.size for metric in METRICS)

#: The places of what only ever grows. These outlive a process.
_COUNTED: Final = [
    place
    for metric in METRICS
    if metric.kind is not Kind.GAUGE
    for place in range(metric.start, metric.start + metric.size)
]


def no_numbers() -> Numbers:
    """All of them 0."""
    return [0.0] * SIZE


def add(numbers: Numbers, more: Sequence[float]) -> None:
    """Add a whole row to another."""
    numbers[:] = map(plus, numbers, more)


def add_counted(numbers: Numbers, more: Sequence[float]) -> None:
    """Add what outlives its source: all but the gauges."""
    for place in _COUNTED:
        numbers[place] += more[place]


def cumulative(metric: Metric, numbers: Sequence[float]) -> list[float]:
    """How many observations of a histogram are at most each of its bounds; the last is all."""
    return [*accumulate(numbers[metric.start : metric.start + metric.size - 1])]


# ---------------------------------------------------------------------------
# The meter
# ---------------------------------------------------------------------------


#: What has counted something itself. It adds to the numbers it is given what it has counted, and
#: what it has now. All that must not change meanwhile it reads in its first step. Each step takes
#: a tenth of a millisecond or so.
Source: TypeAlias = Callable[[Numbers], Iterator[None]]


@final
class Meter:
    """The numbers of one run of trio.

    Attributes:
        numbers: what was counted here, and by sources that are over.
        work: how many seconds the last `measure` took of the processor.
    """

    def __init__(self) -> None:
        self.numbers: Numbers = no_numbers()
        self.work: float = 0.0
        self._sources: dict[Source, None] = {}

    def count(self, metric: Metric, *labels: str) -> None:
        self.numbers[metric.places[labels]] += 1

    def observe(self, metric: Metric, value: float, times: int = 1) -> None:
        """Note a value of a histogram, or the same value so many times."""
        numbers = self.numbers
        numbers[metric.start + bisect_left(metric.bounds, value)] += times
        numbers[metric.start + metric.size - 1] += value * times

    def add(self, source: Source) -> None:
        self._sources[source] = None

    def remove(self, source: Source) -> None:
        """The source is over. What it has counted stays."""
        del self._sources[source]
        last = no_numbers()
        for _ in source(last):
            pass
        add_counted(self.numbers, last)

    async def measure(self) -> Numbers:
        """All numbers as of now: counters never fall from one call to the next.

        Thousands of connections are read in many steps, and other tasks run between these. What
        ends meanwhile is not counted twice, because all sources are asked at the same moment what
        they have.
        """
        numbers = self.numbers.copy()
        started = time.perf_counter()
        readings = [source(numbers) for source in self._sources]
        left = [reading for reading in readings if _take_step(reading)]
        work = time.perf_counter() - started
        while left:
            await trio.lowlevel.checkpoint()
            started = time.perf_counter()
            if not _take_step(left[-1]):
                left.pop()
            work += time.perf_counter() - started
        self.work = work
        return numbers


def _take_step(reading: Iterator[None]) -> bool:
    """Whether there is another."""
    return next(reading, reading) is not reading


@contextmanager
def measured(source: Source, meter: Meter | None) -> Generator[None, None, None]:
    """Have a source measured within the block, and what it has counted kept after it.

    There is no meter if metrics are off.
    """
    if meter is None:
        yield
        return
    meter.add(source)
    try:
        yield
    finally:
        meter.remove(source)


#: The meter of this run of trio, while metrics are on.
METER: Final[RunVar[Meter | None]] = RunVar("trio_ws_meter", None)
