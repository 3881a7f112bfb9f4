"""A backplane over Redis: it keeps connections to Redis, and sends and receives over them.

This module owns the options and the life of the connections: when to connect, when to give up, and
when to try again. `pubsub` and `streams` know the commands of the two modes. `link` makes a
connection; it is imported only when a `RedisBackplane` is made, because it needs coredis.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, Unpack, final

import trio

from ..._arguments import check_client_context
from ..._backoff import Backoff
from ..._log import LoggerLike
from ..._nursery import errors_in, raise_as_is
from ..._options import check_limits, check_logger, make_options
from .._base import BackplaneError
from .._queued import MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES, QueuedBackplane
from .address import Address, BrokerLost, BrokerRefused, Scheme, parse_url
from .probe import probe
from .pubsub import PubSub
from .streams import Streams

if TYPE_CHECKING:
    from .link import Link

OpenLink: TypeAlias = "Callable[[trio.Nursery, Address, ssl.SSLContext | None], Awaitable[Link]]"


@dataclass(frozen=True, kw_only=True)
class RedisOptions:
    """The keyword arguments of `RedisBackplane`. All times are in seconds, all sizes in bytes."""

    mode: Literal["pubsub", "streams"] = "pubsub"
    """``"pubsub"`` is cheapest, and forgets: what is published while a process is not connected
    never reaches it. ``"streams"`` keeps messages in Redis. Such a process then reads them later.
    All processes must use the same mode."""

    prefix: str = "trio_ws:"
    """The beginning of the names of all channels and keys. Different programs that share a Redis
    server need different prefixes, because Redis's databases do not separate channels."""

    max_queued_messages: float = MAX_QUEUED_MESSAGES
    """Messages published and not yet on their way to Redis. When one more comes, the oldest is
    dropped. 10 000 are 10 s without Redis at 1000 messages a second. One batch of 256 may be in
    flight in addition."""

    max_queued_bytes: float = MAX_QUEUED_BYTES
    """Bytes of such messages. A single message that is larger may wait alone."""

    stream_length: float = 10_000
    """With ``"streams"``, about how many messages of each topic Redis keeps. This is how far behind
    a process may fall, or how long it may be away, without missing any. It costs memory in
    Redis."""

    stream_ttl: float = 24 * 3600.0
    """With ``"streams"``, Redis deletes a topic's stream after this long without a message, so that
    unused topics do not stay for ever. It may be up to a tenth less."""

    ping_interval: float = 1.0
    """A connection to Redis over which nothing came for this long is sent a PING."""

    ping_timeout: float = 2.0
    """If nothing comes for this long after the PING, the connection is replaced by a new one. The
    defaults find a dead connection within 4 s; larger values forgive a slower broker."""

    open_timeout: float = 5.0
    """For one attempt to connect: name look-up, TCP, TLS, log-in and subscribing together."""

    ssl_context: ssl.SSLContext | None = None
    """For ``rediss`` URLs. By default the system's trust store, with host names checked."""

    logger: LoggerLike = field(default_factory=lambda: logging.getLogger("trio_ws"))
    """The logger for records: a warning when Redis is lost, a line when it is back."""

    def __post_init__(self) -> None:
        if self.mode not in ("pubsub", "streams"):
            raise ValueError(f"mode is 'pubsub' or 'streams', not {self.mode!r}")
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix is a str, not {self.prefix!r}")
        check_limits(self)
        check_client_context(self.ssl_context)
        check_logger(self.logger)


class RedisKeywords(TypedDict, total=False):
    """The keyword arguments of `RedisOptions`."""

    mode: Literal["pubsub", "streams"]
    prefix: str
    max_queued_messages: float
    max_queued_bytes: float
    stream_length: float
    stream_ttl: float
    ping_interval: float
    ping_timeout: float
    open_timeout: float
    ssl_context: ssl.SSLContext | None
    logger: LoggerLike


@final
class RedisBackplane(QueuedBackplane):
    """A backplane over one Redis server, 6.2 or later, with two connections to it.

    See `Backplane` for the methods, and `RedisOptions` for the options. When Redis is away, it is
    tried again after 50 ms, then after twice as long each time, up to 2 s. Published messages wait
    meanwhile, up to `max_queued_messages`.

    If Redis cannot be reached at the start, this is logged, and Redis is tried again. If it answers
    and refuses (a wrong password, a missing permission, a database that is not there), `run` ends
    with a `BackplaneError`. Later, both are logged and tried again, because passwords change and
    servers move while programs run.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, ``rediss://…`` for TLS, or
            ``unix:///path[?db=database]``. In a user name, password or path, percent-encode
            whatever is not a letter or digit.
        options: see `RedisOptions`.

    Raises:
        ImportError: coredis is not installed.
        ValueError: the URL is not a Redis URL, or an option is out of its range.
        TypeError: an option is of the wrong type.
    """

    def __init__(self, url: str, **options: Unpack[RedisKeywords]) -> None:
        self._address = parse_url(url)
        self._options = config = make_options(RedisOptions, options, type(self))
        self._open_link = _import_open_link()
        super().__init__(config.max_queued_messages, config.max_queued_bytes, config.logger)
        self._ssl_context = config.ssl_context
        if self._address.scheme is not Scheme.TLS:
            self._ssl_context = None
        elif self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        self._mode: PubSub | Streams
        if config.mode == "pubsub":
            self._mode = PubSub(config.prefix, self._interest, self._incoming)
        else:
            self._mode = Streams(
                config.prefix,
                config.stream_length,
                config.stream_ttl,
                self._interest,
                self._incoming,
            )
        self._has_started = False
        self._connected_at = inf
        self._problem = ""

    def __repr__(self) -> str:
        state = "connected" if self._connected else "not connected"
        return f"<RedisBackplane {self._options.mode} over {self._address}, {state}>"

    # -----------------------------------------------------------------------
    # Keeping connections
    # -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _join(self, task_status: trio.TaskStatus[None]) -> None:
        backoff = make_backoff()
        while True:
            self._connected_at = inf
            try:
                await self._hold_session(task_status)
            except BrokerLost as exc:
                self._log_problem(f"is away: {exc}")
            except BrokerRefused as exc:
                if not self._has_started:
                    raise BackplaneError(f"Redis at {self._address} refuses: {exc}") from exc
                self._log_problem(f"refuses: {exc}")
            self._start(task_status)
            await trio.sleep(backoff.delay(trio.current_time() - self._connected_at))

    async def _hold_session(self, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and send and receive until something breaks. Then the whole session ends.

        Raises:
            BrokerLost, BrokerRefused: what broke. Any other exception is a mistake in the code, and
                comes out bare.
        """
        failures: list[BaseException] = []
        try:
            async with trio.open_nursery() as nursery:
                link = await self._connect(nursery)
                self._note_connected()
                self._start(task_status)
                await self._send(link)
        except BaseExceptionGroup as group:
            failures.append(main_error(group))
        finally:
            self._note_lost()
        raise_as_is(failures.pop())  # a session ends only by failing

    async def _connect(self, nursery: trio.Nursery) -> Link:
        """Open two connections, so that no answer to a publish queues behind incoming messages."""
        interval, timeout = self._options.ping_interval, self._options.ping_timeout
        try:
            with trio.fail_after(self._options.open_timeout):
                await probe(self._address, self._ssl_context)
                link = await self._open_link(nursery, self._address, self._ssl_context)
                listening = await self._open_link(nursery, self._address, self._ssl_context)
                self._mode.start_session()
                await nursery.start(self._mode.listen, listening, link)
        except trio.TooSlowError:
            raise BrokerLost(f"no answer within {self._options.open_timeout:g} s") from None
        nursery.start_soon(link.watch, interval, timeout)
        nursery.start_soon(listening.watch, interval, timeout)
        return link

    def _start(self, task_status: trio.TaskStatus[None]) -> None:
        if not self._has_started:
            self._has_started = True
            task_status.started()

    # -----------------------------------------------------------------------
    # Using them
    # -----------------------------------------------------------------------

    async def _send(self, link: Link) -> None:
        while True:
            batch = await self._outgoing.next_batch()
            asked = [[link.ask(*words) for words in self._mode.commands(item)] for item in batch]
            for item, (reply, *upkeep) in zip(batch, asked, strict=True):
                try:
                    await link.answer(reply)
                except BrokerRefused as exc:
                    self._refuse(item)
                    self._log_refused(item.topic, exc)
                else:
                    self._outgoing.settle()
                for each in upkeep:
                    # An operator who does not permit EXPIRE wants streams to stay.
                    with suppress(BrokerRefused):
                        await link.answer(each)

    # -----------------------------------------------------------------------
    # Logging
    # -----------------------------------------------------------------------

    def _note_connected(self) -> None:
        super()._note_connected()
        self._connected_at = trio.current_time()
        if self._problem:
            self._logger.info("Redis at %s is back", self._address)
            self._problem = ""

    def _log_problem(self, problem: str) -> None:
        """Warn of a problem once, and not at each attempt that ends the same way."""
        level = logging.DEBUG if problem == self._problem else logging.WARNING
        self._logger.log(level, "Redis at %s %s; trying again", self._address, problem)
        self._problem = problem

    def _log_refused(self, topic: str, problem: BrokerRefused) -> None:
        """Warn of the first, second, fourth, eighth… refusal, so as not to fill the log."""
        refused = self._outgoing.refused
        if refused.bit_count() == 1:
            self._logger.warning(
                "Redis at %s refuses a message on topic %r, which is lost: %s (%d so far)",
                self._address,
                topic,
                problem,
                refused,
            )


def make_backoff() -> Backoff:
    """The delays between tries to connect.

    A connection that Redis drops as soon as it is made, as it drops slow readers, did not hold.
    """
    return Backoff(first=0.05, longest=2.0, steady=2.0, jitter=0.5)


def main_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report of several: a mistake in the code, else a refusal, else a loss."""
    return min(errors_in(group), key=_rank, default=group)


def _rank(error: BaseException) -> int:
    return 2 if isinstance(error, BrokerLost) else 1 if isinstance(error, BrokerRefused) else 0


def _import_open_link() -> OpenLink:
    try:
        from .link import open_link  # noqa: PLC0415 - fails where coredis is missing
    except ImportError as exc:
        raise ImportError('a RedisBackplane needs coredis: pip install "trio-ws[redis]"') from exc
    return open_link
