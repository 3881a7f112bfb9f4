"""Reconnecting: one connection after another, in two phases.

This module owns the public iterator and its links: which end of a block leads to the next round,
and what comes out instead. How a connection comes about is in `attempts`.

The iterator only shakes hands. It opens no nursery and no scope, so the loop may be left anywhere.
What lives as long as a connection lives in the block of its link. And a block cannot tell ``break``
from its own end: so whatever is decided when it ends without an exception, or was prepared by then,
waits for the next round. If there is none, it is freed with the iterator.
"""

from __future__ import annotations

import random
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, Unpack, cast, final

import trio

from .._arguments import check_is_function, check_plain, check_takes
from .._connection.lifetime import Lifetime
from .._connection.services import open_services
from .._connection.silence import Silence
from .._connection.websocket import WebSocket
from .._errors import CloseReason, ConnectionClosed
from .._http.headers import HeadersLike
from .._keywords import ReconnectingKeywords
from .._nursery import leaf_exceptions, protected_context, raise_as_is
from .._options import ClientOptions, check_limit, make_options, shows_options
from .._threads import check_in_trio
from .attempts import Attempts, Fresh, Retry, Shaken
from .client import checked_target
from .renewal import Renewal
from .turns import Turns

#: A URL, or a function that gives it, which may be async.
_URL: TypeAlias = str | Fresh[str]

#: A renewal begins after at least this part of `renew_after`, so that clients which began together
#: do not renew together.
EARLIEST_RENEWAL = 0.9


@shows_options(ClientOptions)
def reconnecting(
    url: _URL | Sequence[_URL],
    *,
    min_delay: float = 0.5,
    max_delay: float = 30.0,
    max_retry_after: float = 300.0,
    retry: Retry | None = None,
    receive_timeout: float = inf,
    renew_after: float = inf,
    headers: HeadersLike | Fresh[HeadersLike] = (),
    subprotocols: Sequence[str] | Fresh[Sequence[str]] = (),
    **options: Unpack[ReconnectingKeywords],
) -> AsyncIterator[Link]:
    """Connect, and connect again whenever the connection is lost::

        async for link in reconnecting("wss://feed.example/stream", headers=fresh_token):
            async with link as ws:
                await ws.send_json({"subscribe": "btc", "since": last})
                async for message in ws:
                    link.healthy()
                    last = handle(message)

    Each round of the loop has a `Link`: a connection that has shaken hands. Entering it starts the
    connection, and leaving the block closes it, as with `open_websocket_url`. The end of the
    connection ends the block, and the loop goes on, if another try is worth it. ``break``,
    ``return``, your own exceptions and cancellations leave the loop at once, as they are, and
    nothing is left behind. A round that is cancelled loses nothing: a later one waits for what is
    left of the delay.

    A table in the documentation says what is worth another try. What is final comes out as it is: a
    `HandshakeError` of the iteration, or the `ConnectionLost` of the block. If the block ended
    without raising it, the next round does.

    Args:
        url: where to connect to. With several, the order is shuffled, one that works is kept, and
            each has delays of its own. Any of them may be a function, sync or async, that gives the
            URL and is called for each attempt. What it raises comes out as it is, unless `retry`
            decides otherwise.
        min_delay: before another try, the client waits for a random time from these seconds up to
            twice as many, then to four times as many, and so on. It begins anew once a connection
            has been open for longer than the delay before it, or after `Link.healthy`. Half a
            second is no burden for a server, however many clients it lost.
        max_delay: the longest of these delays, and about how late a server that comes back is
            noticed.
        max_retry_after: if a refusal has a Retry-After field, that many seconds are waited for
            before the delay, but no more than these.
        retry: a function that is called with the exception of each failure and with what the table
            says of it, and returns whether to go on. For the end of a connection, the exception is
            a `ConnectionEnded` or a `ConnectionLost`.
        receive_timeout: if no message has come for so many seconds, and none waits to be received,
            the connection counts as lost, with the code 1011. Choose several times the longest
            pause that the feed makes.
        renew_after: a connection is replaced when it is so many seconds old, or up to a tenth
            before. The next handshake is made meanwhile. When it is done, ``async for`` ends after
            the messages that have come, and the next round has its link at once.
        headers: as the option, or a function as for `url`.
        subprotocols: as the option, or a function as for `url`.
        options: those of `ClientOptions`.

    Raises:
        InvalidURL, TypeError, ValueError: an argument is wrong. This comes at once.
    """
    given: dict[str, object] = {**options}
    for name, value in (("headers", headers), ("subprotocols", subprotocols)):
        if callable(value):
            _check_fresh(name, value)
        else:
            given[name] = value
    settings = make_options(ClientOptions, given, reconnecting)
    _check_delays(min_delay, max_delay)
    for name, seconds in (
        ("max_retry_after", max_retry_after),
        ("receive_timeout", receive_timeout),
        ("renew_after", renew_after),
    ):
        check_limit(name, seconds)
    if retry is not None:
        check_plain("retry", retry, "an Exception", "True or False")
    urls = _checked_urls(url, settings)
    attempts = Attempts(
        urls,
        settings,
        headers=headers if callable(headers) else None,
        subprotocols=subprotocols if callable(subprotocols) else None,
        turns=Turns(len(urls), min_delay, max_delay),
        retry=retry,
        max_retry_after=max_retry_after,
    )
    return Reconnecting(attempts, receive_timeout, renew_after)


def _check_delays(min_delay: float, max_delay: float) -> None:
    for name, value in (("min_delay", min_delay), ("max_delay", max_delay)):
        check_limit(name, value)
        if value == inf:
            raise ValueError(f"{name} is a number of seconds, and cannot be infinite")
    if max_delay < min_delay:
        raise ValueError(f"max_delay ({max_delay!r}) is less than min_delay ({min_delay!r})")


def _checked_urls(url: object, options: ClientOptions) -> list[Fresh[str]]:
    single = isinstance(url, (str, bytes)) or callable(url) or not isinstance(url, Iterable)
    given: list[object] = [url] if single else list(cast("Iterable[object]", url))
    if not given:
        raise ValueError("reconnecting() needs a URL, and the list is empty")
    return [_checked_url(each, options) for each in given]


def _checked_url(url: object, options: ClientOptions) -> Fresh[str]:
    if callable(url):
        _check_fresh("url", url)
        return cast("Fresh[str]", url)
    text = cast("str", url)
    checked_target(text, options)  # raises TypeError for what is no str
    return lambda: text


def _check_fresh(name: str, function: object) -> None:
    check_is_function(name, function, "no arguments")
    check_takes(f"{name} is called without arguments", function, ())


# ---------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------


@final
class _End:
    """How the connection of a link ended, as it was when the block did.

    Args:
        websocket: the connection.
        error: what says so.
        attempts: know whether another one is worth it.
    """

    def __init__(self, websocket: WebSocket, error: ConnectionClosed, attempts: Attempts) -> None:
        self.websocket: WebSocket = websocket
        self.error: ConnectionClosed = error
        self._attempts = attempts

    @cached_property
    def is_transient(self) -> bool:
        """Whether another connection is worth trying. The application is asked once."""
        return self._attempts.may_retry(self.error)


@final
class Reconnecting(AsyncIterator["Link"]):
    """What `reconnecting` returns.

    Attributes:
        attempts: make the connections.
        receive_timeout, renew_after: see `reconnecting`.
        in_use: a round is being made, or its block goes on.
        reason: how the connection before this round ended.
        end: the same, where it counts as a loss.
        ready: the connection of the next round, if a renewal made it.
    """

    __slots__ = (
        "__weakref__",
        "_given",
        "_run",
        "attempts",
        "end",
        "in_use",
        "ready",
        "reason",
        "receive_timeout",
        "renew_after",
    )

    def __init__(self, attempts: Attempts, receive_timeout: float, renew_after: float) -> None:
        self.attempts: Attempts = attempts
        self.receive_timeout: float = receive_timeout
        self.renew_after: float = renew_after
        self.in_use: bool = False
        self.reason: CloseReason | None = None
        self.end: _End | None = None
        self.ready: Shaken | None = None
        #: What the last link was made of.
        self._given: Shaken | None = None
        #: The run of trio that it belongs to, from the first round on.
        self._run: trio.lowlevel.TrioToken | None = None

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Link:
        check_in_trio("reconnecting")
        if self.in_use:
            raise RuntimeError("leave the block of the last link before you ask for the next")
        self._check_run()
        self.in_use = True
        try:
            self._close_unentered()
            shaken = await self._next_connection()
        except StopAsyncIteration as exc:  # `async for` would take it for the end of the loop
            raise RuntimeError("a function of the application raised StopAsyncIteration") from exc
        finally:
            self.in_use = False
        self._given = shaken
        return Link(self, shaken)

    def _check_run(self) -> None:
        """Each run has a clock of its own, so the delays of one mean nothing to another."""
        run = trio.lowlevel.current_trio_token()
        if self._run is None:
            self._run = run
        elif self._run is not run:
            raise RuntimeError("this loop began in another trio.run(): call reconnecting() anew")

    def _close_unentered(self) -> None:
        given, self._given = self._given, None
        if given is not None and given.drop():
            self.attempts.note_end(given.place, -inf)
            warnings.warn(
                "a link was not entered, and its connection is closed: each round of a loop over "
                "reconnecting() needs its `async with link as ws:`",
                ResourceWarning,
                stacklevel=3,
            )

    async def _next_connection(self) -> Shaken:
        end, self.end = self.end, None
        if end is not None and not end.is_transient:
            raise_as_is(end.error)
        await trio.lowlevel.checkpoint()
        ready, self.ready = self.ready, None
        if ready is not None:
            ready.waited = 0.0  # by nobody
            return ready
        if end is not None:
            self.attempts.log_loss(end.websocket, end.error.reason)
        return await self.attempts.connect()


@final
class Link(AbstractAsyncContextManager[WebSocket, bool]):
    """A connection of `reconnecting`, to be entered once: ``async with link as ws:``.

    It has shaken hands. Its tasks live in the block, and the messages that have come by then are
    received there. One that is not entered is closed by the next round, with a `ResourceWarning`.

    Attributes:
        attempt: which attempt it was that succeeded, 1 for the first of this round.
        waited: how many seconds this round has waited for it between attempts. It is 0 for the
            first connection, and for one that was made by renewal.
        reason: how the connection before it ended; `None` for the first.
    """

    __slots__ = (
        "_attempts",
        "_context",
        "_end",
        "_entered_at",
        "_is_healthy",
        "_is_noted",
        "_loop",
        "_receive_timeout",
        "_renew_after",
        "_renewal",
        "_shaken",
        "attempt",
        "reason",
        "waited",
    )

    attempt: int
    waited: float
    reason: CloseReason | None

    # Made where the block begins.
    _context: AbstractAsyncContextManager[WebSocket, bool | None]

    def __init__(self, loop: Reconnecting, shaken: Shaken) -> None:
        self.attempt = shaken.attempt
        self.waited = shaken.waited
        self.reason = loop.reason
        self._attempts = loop.attempts
        self._receive_timeout = loop.receive_timeout
        self._renew_after = loop.renew_after
        # The variable of the loop outlives it. What waits for a next round must not.
        self._loop = weakref.ref(loop)
        self._shaken = shaken
        self._renewal: Renewal | None = None
        self._end: _End | None = None
        self._is_noted = False
        self._is_healthy = False
        self._entered_at = inf

    def __repr__(self) -> str:
        after = f", after {self.reason}" if self.reason else ""
        return f"<Link at attempt {self.attempt}, waited {self.waited:.1f} s{after}>"

    if not TYPE_CHECKING:  # pragma: no branch - checkers would take any name for an attribute

        def __getattr__(self, name: str) -> object:
            hint = ""
            if not name.startswith("_") and hasattr(WebSocket, name):
                hint = ": that is the connection's, so enter the link, `async with link as ws:`"
            raise AttributeError(f"a Link has no attribute {name!r}{hint}")

    # What the block may say…

    def healthy(self) -> None:
        """The connection has proved that it works: the next delay is a short one again.

        Call it once the server has answered, rather than at once: a server that accepts connections
        and closes them soon is the one that the delays are for.
        """
        self._is_healthy = True

    def renew(self) -> None:
        """Replace this connection now, as `renew_after` does: a server has said that it will close.

        Calling it again, or outside of the block, changes nothing.
        """
        if self._renewal is not None:
            self._renewal.begin()

    # The block…

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> WebSocket:
        websocket = self._shaken.take()
        if websocket is None:
            raise RuntimeError("a link is entered once, and before the next round of its loop")
        loop = self._loop()
        if loop is not None:
            loop.in_use = True
        self._entered_at = trio.current_time()
        share = random.uniform(EARLIEST_RENEWAL, 1)  # noqa: S311 - no secret
        self._renewal = Renewal(
            websocket,
            self._attempts,
            self._entered_at + self._renew_after * share,
            partial(self._note_planned_end, websocket),
        )
        self._context = self._live(websocket, self._renewal)
        return await self._context.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return bool(await self._context.__aexit__(kind, exc, traceback))

    @protected_context
    async def _live(
        self, websocket: WebSocket, renewal: Renewal
    ) -> AsyncGenerator[WebSocket, None]:
        timeout = self._receive_timeout
        failures: list[BaseException] = []
        try:
            async with open_services() as services, Lifetime(websocket, services):
                _silence = Silence(websocket, services, timeout) if timeout < inf else None
                services.start_task(renewal.run)
                try:
                    with renewal.block:
                        yield websocket
                finally:
                    renewal.stop()
                    self._note_end(websocket)
        except BaseException as exc:  # put back below, unless it is the end of this connection
            failures = self._failures_in(exc, websocket)
        finally:
            self._renewal = None  # it has this link
            loop = self._loop()
            if loop is not None:
                loop.in_use = False
                loop.reason = websocket.close_reason
        if renewal.block.cancelled_caught:
            failures += renewal.failed
        renewal.failed.clear()  # its traceback leads back to the renewal, and so to the connection
        if failures:
            if renewal.next is not None:
                renewal.next.drop()
            raise_as_is(failures.pop(0))
        if loop is not None:
            loop.end, loop.ready = self._end, renewal.next

    def _note_planned_end(self, websocket: WebSocket) -> bool:
        """The server ended the connection by plan; say whether another one is worth trying."""
        self._note_end(websocket)
        return self._end is not None and self._end.is_transient

    def _note_end(self, websocket: WebSocket) -> None:
        """The connection is over, or the block is. The first that happens counts."""
        if self._is_noted:
            return
        self._is_noted = True
        # Leaving would heed the peer's last frame first. What it says decides whether to go on.
        websocket._ending.heed_peer()
        lasted = inf if self._is_healthy else trio.current_time() - self._entered_at
        self._attempts.note_end(self._shaken.place, lasted)
        error = websocket._ending.error_unless_chosen()
        if error is not None:
            self._end = _End(websocket, error, self._attempts)

    def _failures_in(self, exc: BaseException, websocket: WebSocket) -> list[BaseException]:
        """What comes out of the block, which raised `exc`."""
        leaves = leaf_exceptions(exc)
        others = [leaf for leaf in leaves if not websocket._ending.is_end(leaf)]
        if len(others) == len(leaves) or not all(isinstance(one, trio.Cancelled) for one in others):
            return [exc]
        # It is the end of this connection, bare or from nurseries of the application. A timeout may
        # have come at the same time.
        if self._end is not None and not self._end.is_transient:
            return [exc]
        if not others:
            return []
        cancellations, _ = cast("BaseExceptionGroup[BaseException]", exc).split(trio.Cancelled)
        assert cancellations is not None
        return [cancellations]
