"""A backplane over Redis: it keeps connections to Redis, and sends and receives over them.

This module owns the options and the life of the connections: when to connect, when to give up, and
when to try again. `pubsub` and `streams` know the commands of the two modes. `link` makes a
connection; it is imported only when a `RedisBackplane` is made, because it needs coredis.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, final

import trio

from ..._arguments import check_client_context
from ..._backoff import Backoff
from ..._log import LoggerLike
from ..._nursery import errors_in, raise_as_is
from ..._options import check_limits, check_logger, make_options, shows_options
from .._base import BackplaneError, Past
from .._position import Position
from .._queued import MAX_QUEUED_BYTES, MAX_QUEUED_MESSAGES, QueuedBackplane, check_topic
from .address import BrokerLost, BrokerRefused, Scheme, parse_url
from .probe import probe
from .pubsub import PubSub
from .scripts import Bounds
from .sentinel import OpenLink, Primary, Sentinels
from .streams import Streams

if TYPE_CHECKING:
    from .link import Link

#: How often Sentinels are asked whether there is another primary, in seconds.
SENTINEL_INTERVAL = 2.0


@dataclass(frozen=True, kw_only=True)
class RedisOptions:
    """The options of `RedisBackplane`. All times are in seconds, all sizes in bytes."""

    mode: Literal["pubsub", "streams"] = "pubsub"
    """``"pubsub"`` is cheapest, and forgets: what is published while a process is not connected
    never reaches it. ``"streams"`` keeps positions and messages in Redis, so that such a process
    reads what it missed. All processes must use the same mode."""

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
    a process or a client may fall, or how long it may be away, without missing any. It costs memory
    in Redis."""

    stream_max_age: float = inf
    """With ``"streams"``, for how long a message is kept. Older ones are not given to anybody."""

    stream_ttl: float = 24 * 3600.0
    """With ``"streams"``, Redis deletes what it has of a topic after this long without a message,
    so that unused topics do not stay for ever. It may be a tenth less."""

    ping_interval: float = 1.0
    """A connection to Redis over which nothing came for this long is sent a PING."""

    ping_timeout: float = 2.0
    """If nothing comes for this long after the PING, the connection is replaced by a new one. The
    defaults find a dead connection within 4 s; larger values forgive a slower broker."""

    open_timeout: float = 5.0
    """For one attempt to connect: asking Sentinels, name look-up, TCP, TLS, log-in and subscribing
    together."""

    sentinel_password: str | None = None
    """With ``redis+sentinel`` URLs, what the Sentinels themselves ask for, if anything. The user
    and the password in the URL are for the servers that they name."""

    ssl_context: ssl.SSLContext | None = None
    """For ``rediss`` URLs. By default the system's trust store, with host names checked. Sentinels
    are spoken to over TLS, too, and name a server as its certificate does if they have
    ``sentinel announce-hostnames yes``."""

    logger: LoggerLike = field(default_factory=lambda: logging.getLogger("trio_ws"))
    """The logger for records: a warning when Redis is lost, a line when it is back."""

    def __post_init__(self) -> None:
        if self.mode not in ("pubsub", "streams"):
            raise ValueError(f"mode is 'pubsub' or 'streams', not {self.mode!r}")
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix is a str, not {self.prefix!r}")
        if not isinstance(self.sentinel_password, str | None):
            raise TypeError("sentinel_password is a str")  # which is not for a log
        check_limits(self)
        check_client_context(self.ssl_context)
        check_logger(self.logger)


shows_options(RedisOptions)(RedisOptions)


class RedisKeywords(TypedDict, total=False):
    """The keyword arguments of `RedisBackplane`: those of `RedisOptions`."""

    mode: Literal["pubsub", "streams"]
    """``"pubsub"`` is cheapest, and forgets: what is published while a process is not connected
    never reaches it. ``"streams"`` keeps positions and messages in Redis, so that such a process
    reads what it missed. All processes must use the same mode."""
    prefix: str
    """The beginning of the names of all channels and keys. Different programs that share a Redis
    server need different prefixes, because Redis's databases do not separate channels."""
    max_queued_messages: float
    """Messages published and not yet on their way to Redis. When one more comes, the oldest is
    dropped. 10 000 are 10 s without Redis at 1000 messages a second. One batch of 256 may be in
    flight in addition."""
    max_queued_bytes: float
    """Bytes of such messages. A single message that is larger may wait alone."""
    stream_length: float
    """With ``"streams"``, about how many messages of each topic Redis keeps. This is how far behind
    a process or a client may fall, or how long it may be away, without missing any. It costs memory
    in Redis."""
    stream_max_age: float
    """With ``"streams"``, for how long a message is kept. Older ones are not given to anybody."""
    stream_ttl: float
    """With ``"streams"``, Redis deletes what it has of a topic after this long without a message,
    so that unused topics do not stay for ever. It may be a tenth less."""
    ping_interval: float
    """A connection to Redis over which nothing came for this long is sent a PING."""
    ping_timeout: float
    """If nothing comes for this long after the PING, the connection is replaced by a new one. The
    defaults find a dead connection within 4 s; larger values forgive a slower broker."""
    open_timeout: float
    """For one attempt to connect: asking Sentinels, name look-up, TCP, TLS, log-in and subscribing
    together."""
    sentinel_password: str | None
    """With ``redis+sentinel`` URLs, what the Sentinels themselves ask for, if anything. The user
    and the password in the URL are for the servers that they name."""
    ssl_context: ssl.SSLContext | None
    """For ``rediss`` URLs. By default the system's trust store, with host names checked. Sentinels
    are spoken to over TLS, too, and name a server as its certificate does if they have
    ``sentinel announce-hostnames yes``."""
    logger: LoggerLike
    """The logger for records: a warning when Redis is lost, a line when it is back."""


@shows_options(RedisOptions)
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
            whatever is not a letter or digit. ``redis+sentinel://[user:password@]host[:port],…/name``
            asks these Sentinels for the server that they call by this name, now and after each
            failover; ``rediss+sentinel://…`` does so over TLS.
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
        self._sentinels: Sentinels | None = None
        if self._address.sentinels:
            self._sentinels = Sentinels(
                self._address,
                config.sentinel_password,
                self._ssl_context,
                self._open_link,
                config.open_timeout / 2 / len(self._address.sentinels),
            )
        self._streams: Streams | None = None
        self._mode: PubSub | Streams
        if config.mode == "pubsub":
            self._mode = PubSub(config.prefix, self._interest, self._incoming)
        else:
            bounds = Bounds(
                length=config.stream_length,
                max_age=config.stream_max_age,
                time_to_live=config.stream_ttl,
            )
            self._mode = self._streams = Streams(
                config.prefix, bounds, self._interest, self._incoming, self._places
            )
        self.keeps_positions: bool = self._streams is not None
        self._link: Link | None = None
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
                    text = f"Redis at {self._address} refuses: {exc}"
                    raise BackplaneError(text) from exc.__cause__
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
                self._link = link = await self._connect(nursery)
                self._note_connected()
                self._start(task_status)
                await self._send(link)
        except BaseExceptionGroup as group:
            failures.append(main_error(group))
        finally:
            self._link = None
            self._note_lost()
        raise_as_is(failures.pop())  # a session ends only by failing

    async def _connect(self, nursery: trio.Nursery) -> Link:
        """Open two connections, so that no answer to a publish queues behind incoming messages."""
        interval, timeout = self._options.ping_interval, self._options.ping_timeout
        primary = Primary(self._address)
        try:
            with trio.fail_after(self._options.open_timeout):
                if self._sentinels is not None:
                    primary = await self._sentinels.find()
                await probe(primary.address, self._ssl_context)
                link = await self._open_link(nursery, primary.address, self._ssl_context)
                listening = await self._open_link(nursery, primary.address, self._ssl_context)
                if self._streams is not None:
                    check_server(await link.request(b"HELLO"))
                await self._mode.start_session(link, primary.failovers)
                await nursery.start(self._mode.listen, listening, link)
        except trio.TooSlowError:
            raise BrokerLost(f"no answer within {self._options.open_timeout:g} s") from None
        nursery.start_soon(link.watch, interval, timeout)
        nursery.start_soon(listening.watch, interval, timeout)
        if self._sentinels is not None:
            nursery.start_soon(self._sentinels.watch, primary, SENTINEL_INTERVAL)
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
            asked = [link.ask(*self._mode.command(item)) for item in batch]
            for item, reply in zip(batch, asked, strict=True):
                try:
                    await link.answer(reply)
                except BrokerRefused as exc:
                    self._refuse(item)
                    self._log_refused(item.topic, exc)
                else:
                    self._mode.note_sent(item)
                    self._outgoing.settle()

    async def read(self, topic: str, after: Position | None, count: int) -> Past:
        if self._streams is None:
            return await super().read(topic, after, count)
        check_topic(topic)
        await trio.lowlevel.checkpoint()
        if self._link is None:
            raise BackplaneError(f"Redis at {self._address} is away")
        try:
            return await self._streams.read(self._link, topic, after, count)
        except (BrokerLost, BrokerRefused) as exc:
            raise BackplaneError(f"Redis at {self._address}: {exc}") from exc.__cause__

    # -----------------------------------------------------------------------
    # Logging
    # -----------------------------------------------------------------------

    def _note_connected(self) -> None:
        super()._note_connected()
        self._connected_at = trio.current_time()
        if self._problem:
            # As loud as the warning that it was away.
            self._logger.warning("Redis at %s is back", self._address)
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


def check_server(hello: Any) -> None:
    """Check by its answer to HELLO that a server can keep messages.

    Raises:
        BrokerLost: it is a replica, and can do so when it is promoted.
        BrokerRefused: it cannot.
    """
    if hello[b"mode"] == b"cluster":
        raise BrokerRefused(
            "it is part of a Redis Cluster, which only mode='pubsub' works with; 'streams' needs "
            "one server, or several with Sentinel"
        )
    if hello[b"role"] != b"master":
        raise BrokerLost("it is a replica, which takes no messages")


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
