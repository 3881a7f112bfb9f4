"""Topics for clients that come and go: the server's side of trio-ws.live.v1.

This module owns what a client's messages do: who may subscribe, what the application is asked,
and what is answered. `_messages` judges and writes messages, and `_presence` tells who is there.
What is published, kept and caught up on is a `Broadcast`'s business, of which this is a thin layer:
a message is JSON, and what goes out is made of it once for all subscribers.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from .._arguments import awaitable, check_async, check_callable
from .._broadcast.broadcast import Broadcast
from .._broadcast.catching_up import StateUnavailable
from .._broadcast.opening import open_broadcast
from .._broadcast.settings import (
    MAX_IDLE_TOPICS,
    MAX_QUEUED_BYTES,
    MAX_QUEUED_MESSAGES,
    MAX_RECOVERED,
    Exclude,
)
from .._broadcast.subscription import Subscription
from .._connection.websocket import WebSocket
from .._errors import CloseCode
from .._http.values import Accept, Answer, Request, Response, upgrade_required
from .._json import to_json
from .._log import LoggerLike
from .._nursery import open_bare_nursery, protected_context
from .._options import check_limit
from .._web.site import Site
from ..backplane._base import Backplane
from . import _messages as messages
from ._presence import Onlookers

#: How many messages of a topic are kept. In a lively chat, a phone in a tunnel misses fewer.
HISTORY = 100

#: How many topics a connection may have. A page shows fewer things at once.
MAX_TOPICS = 100

#: Whether a client may subscribe to a topic.
Authorize: TypeAlias = "Callable[[WebSocket, str], bool | Awaitable[bool]]"

#: Takes what a client sends about a topic, and gives what the client is answered, as JSON.
OnMessage: TypeAlias = "Callable[[WebSocket, str, Any], object]"

#: Who a client is in a topic: an id, or an id and a value that others see; `None` for nobody.
Identify: TypeAlias = "Callable[[WebSocket, str], str | tuple[str, object] | None]"

#: Gives what a topic is about, as a whole, as JSON.
GetState: TypeAlias = "Callable[[str], Awaitable[object]]"


class Refused(Exception):
    """What `authorize` and `on_message` raise to refuse something, with words for the client.

    The client gets an error, and the connection goes on.

    Args:
        reason: a sentence for the client's developers.
        code: a word for the client's program.
    """

    __module__ = "trio_ws.live"

    def __init__(self, reason: str, *, code: str = "refused") -> None:
        super().__init__(reason)
        self.reason: str = reason
        self.code: str = code


@dataclass(frozen=True, slots=True)
class _Settings:
    """What `open_live` was given, checked."""

    authorize: Authorize | None
    on_message: OnMessage | None
    identify: Identify | None
    max_topics: float

    def __post_init__(self) -> None:
        functions = {
            "authorize": ("a WebSocket", "a topic"),
            "on_message": ("a WebSocket", "a topic", "data"),
            "identify": ("a WebSocket", "a topic"),
        }
        for name, arguments in functions.items():
            function = getattr(self, name)
            if function is not None:
                check_callable(name, function, *arguments)
        check_limit("max_topics", self.max_topics)


@final
class Live(Site):
    """Topics for clients that come and go. `open_live` makes it, and it is a handler::

        router.websocket("/live")(live)

    It speaks ``trio-ws.live.v1``, and refuses clients that do not offer this subprotocol. A handler
    of your own that calls it, ``await live(ws)``, needs ``before=live.admit`` in its route.

    All methods belong to the trio loop that it was opened in.

    Attributes:
        broadcast: what it publishes by. Its messages are JSON.
    """

    def __init__(self, broadcast: Broadcast, onlookers: Onlookers, settings: _Settings) -> None:
        self.broadcast: Broadcast = broadcast
        self._onlookers = onlookers
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Live over {self.broadcast!r}>"

    # Publishing…

    def publish(
        self,
        data: object,
        topic: str,
        *,
        exclude: Exclude = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> int:
        """Send `data`, anything that JSON can hold, to all subscribers of a topic. Never waits.

        Arguments and result are those of `Broadcast.publish`.

        Raises:
            TypeError, ValueError: `data` has no form in JSON; `topic` is no `str`.
        """
        return self.broadcast.publish(
            to_json(data), topic, exclude=exclude, compress=compress, keep=keep
        )

    async def publish_wait(
        self,
        data: object,
        topic: str,
        *,
        exclude: Exclude = None,
        compress: bool | None = None,
        keep: bool = True,
    ) -> int:
        """`publish`, after waiting for room as `Broadcast.publish_wait` does.

        When it is cancelled, nothing was published.
        """
        return await self.broadcast.publish_wait(
            to_json(data), topic, exclude=exclude, compress=compress, keep=keep
        )

    # Serving…

    def check(self) -> None:
        """Called by the server at the start. There is nothing to check."""

    async def admit(self, request: Request) -> Answer:
        """A hook for ``before=`` that chooses the subprotocol, or refuses clients without it."""
        if request.is_upgrade:
            if messages.SUBPROTOCOL not in request.subprotocols:
                return Response(400, body=f"Offer the subprotocol {messages.SUBPROTOCOL}.\n")
            return Accept(messages.SUBPROTOCOL)
        return None

    async def respond(self, request: Request) -> Response:
        """Answer whoever does not ask for a WebSocket. The server calls this."""
        return upgrade_required("This path is for WebSockets.").response

    async def __call__(self, websocket: WebSocket) -> None:
        """Serve a client until it leaves. When it is cancelled, its subscriptions have ended.

        Raises:
            RuntimeError: `admit` was not asked about the client.
            Exception: what `authorize`, `on_message` and `identify` raise, except `Refused`.
        """
        if websocket.subprotocol != messages.SUBPROTOCOL:
            raise RuntimeError(
                f"the client does not speak {messages.SUBPROTOCOL}: give before=live.admit to the "
                "route of a handler that calls this one"
            )
        subscription = self.broadcast.subscribe(websocket)
        subscription._delivery.greeting = _greeting
        async with subscription:
            client = _Client(self, websocket, subscription)
            try:
                async for message in websocket:
                    await client.obey(messages.parse(message))
            except messages.BadMessage as exc:
                await websocket.aclose(CloseCode.POLICY_VIOLATION, str(exc))
            except StateUnavailable:
                # Without what the exception says: the name of a topic may be too long for a reason.
                await websocket.aclose(CloseCode.TRY_AGAIN_LATER, "no state")
            finally:
                client.leave()


def _greeting(topic: str, position: str, *, recovered: bool) -> tuple[str, str]:
    """What goes out before and after what a subscriber has missed."""
    return messages.subscribed(topic, recovered=recovered), messages.current(topic, position)


def _envelope(data: str | bytes, position: str, topic: str) -> str:
    # What is published is text; what `state` gave is bytes.
    if isinstance(data, bytes):
        return messages.published("state", topic, position, data.decode())
    return messages.published("message", topic, position, data)


def _tell_gap(broadcast: Broadcast, topic: str | None) -> None:
    broadcast._tell(topic, messages.gap)


@final
class _Client:
    """One connection, and what it is subscribed to."""

    def __init__(self, live: Live, websocket: WebSocket, subscription: Subscription) -> None:
        self._live = live
        self._settings = live._settings
        self._websocket = websocket
        self._subscription = subscription
        #: What has to be left with each topic.
        self._topics: dict[str, ExitStack] = {}

    async def obey(self, asked: messages.Asked) -> None:
        answer: str | None
        try:
            match asked:
                case messages.Send():
                    answer = await self._take(asked)
                case messages.Subscribe():
                    answer = await self._subscribe(asked)
                case messages.Unsubscribe(topic):
                    answer = None
                    self._unsubscribe(topic)
                case messages.Ping():
                    answer = messages.PONG
                case _:
                    reason = f"there is no {asked.type!r}"
                    answer = messages.error("unknown_type", reason, sent=asked.id)
        except Refused as exc:
            answer = _refusal(asked, exc.code, exc.reason)
        if answer is not None:
            await self._websocket.send(answer)

    async def _take(self, asked: messages.Send) -> str | None:
        if asked.topic not in self._topics:
            return _refusal(asked, "not_subscribed", "subscribe to the topic first")
        if self._settings.on_message is None:
            return _refusal(asked, "forbidden", "clients send nothing here")
        answer = self._settings.on_message(self._websocket, asked.topic, asked.data)
        if inspect.isawaitable(answer):
            answer = await answer
        return None if asked.id is None else messages.ack(asked.id, answer)

    async def _subscribe(self, asked: messages.Subscribe) -> str | None:
        topic = asked.topic
        if topic in self._topics:
            return _refusal(asked, "subscribed", "there is a subscription already")
        if len(self._topics) >= self._settings.max_topics:
            return _refusal(asked, "too_many_topics", f"at most {self._settings.max_topics}")
        if not await self._may_subscribe(topic):
            return _refusal(asked, "forbidden", "not for this client")
        # Before it is subscribed, because this may refuse it, too.
        identify = self._settings.identify
        member = None if identify is None else identify(self._websocket, topic)
        await self._subscription.add_wait(topic, position=asked.position)
        stack = self._topics[topic] = ExitStack()
        if identify is not None:
            if member is not None:
                member_id, value = member if isinstance(member, tuple) else (member, None)
                join = self._live.broadcast.join
                stack.enter_context(join(topic, member_id, value, websocket=self._websocket))
            if asked.presence:
                stack.enter_context(self._live._onlookers.watch(self._websocket, topic))
        return None

    async def _may_subscribe(self, topic: str) -> bool:
        if self._settings.authorize is None:
            return True
        answer: object = self._settings.authorize(self._websocket, topic)
        if inspect.isawaitable(answer):
            answer = await answer
        if not isinstance(answer, bool):
            raise TypeError(f"authorize returns True or False, not {answer!r}")
        return answer

    def _unsubscribe(self, topic: str) -> None:
        if topic in self._topics:
            self._subscription.discard(topic)
            self._topics.pop(topic).close()

    def leave(self) -> None:
        for stack in self._topics.values():
            stack.close()


def _refusal(asked: messages.Asked, code: str, reason: str) -> str | None:
    """The error for what was asked. A `send` without an id wants no answer."""
    if isinstance(asked, messages.Subscribe):
        return messages.error(code, reason, topic=asked.topic)
    assert isinstance(asked, messages.Send)
    if asked.id is None:
        return None
    return messages.error(code, reason, topic=asked.topic, sent=asked.id)


@protected_context
async def open_live(
    *,
    authorize: Authorize | None = None,
    on_message: OnMessage | None = None,
    identify: Identify | None = None,
    state: GetState | None = None,
    history: int = HISTORY,
    max_topics: float = MAX_TOPICS,
    max_recovered: int = MAX_RECOVERED,
    max_idle_topics: float = MAX_IDLE_TOPICS,
    max_queued_messages: float = MAX_QUEUED_MESSAGES,
    max_queued_bytes: float = MAX_QUEUED_BYTES,
    backplane: Backplane | None = None,
    logger: LoggerLike | None = None,
) -> AsyncGenerator[Live, None]:
    """Serve topics to clients that come and go, for as long as a block goes on::

        async with open_live(on_message=take) as live:
            router = Router()
            router.websocket("/live")(live)
            router.live_module("/live.js")
            await serve_websocket(router, "localhost", 8765)

    A client that comes back gets what it has missed. Where that is impossible it is told so, and
    gets the state of the topic, or else what is kept of it.

    Args:
        authorize: ``authorize(ws, topic)``, plain or async, says whether a client may subscribe to
            a topic. By default everybody may subscribe to everything.
        on_message: ``on_message(ws, topic, data)``, plain or async, is given what a client sends
            about a topic that it is subscribed to. What it returns, anything that JSON can hold,
            goes back with the acknowledgement. By default nothing is taken. The messages of a
            connection are handled one after the other, so while it waits, that client does.
        identify: ``identify(ws, topic)`` says who a subscriber is: an id, or an id and a value. It
            is then present in the topic, as by `Broadcast.join`, and clients that ask for it are
            told who is there. `None` for somebody who is not shown. By default nobody is.
        state: ``await state(topic)`` gives what the topic is about, as a whole, as anything that
            JSON can hold; `None` if there is nothing of the kind. It is called for clients that
            come or cannot catch up, once for all who do at the same moment, and sent instead of
            the history. While it raises, such clients are closed with 1013, and come back.
        history: how many messages of a topic are kept, for clients that come or come back.
        max_topics: how many topics a connection may have.
        max_recovered: how many messages a client that comes back may have missed, if the backplane
            keeps positions.
        max_idle_topics: how many topics without subscribers keep their history.
        max_queued_messages: how many messages may wait for one connection.
        max_queued_bytes: how many bytes may.
        backplane: joins this with the others of several processes.
        logger: where exceptions of `state` go; ``trio_ws`` by default.

    What `authorize` and `on_message` raise is an error of the handler, as is what any handler
    raises: the connection is closed with 1011. `Refused` is told to the client instead.

    A client that is too slow is disconnected with 1013, and comes back to what it has missed.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackplaneError: the backplane's broker refused us at the start.
    """
    settings = _Settings(authorize, on_message, identify, max_topics)
    if state is not None:
        check_async("state", state, "a topic")

    async with (
        open_broadcast(
            envelope=_envelope,
            state=None if state is None else _as_bytes(state),
            history=history,
            max_recovered=max_recovered,
            max_idle_topics=max_idle_topics,
            max_queued_messages=max_queued_messages,
            max_queued_bytes=max_queued_bytes,
            on_gap=_tell_gap,
            backplane=backplane,
            logger=logger,
        ) as broadcast,
        open_broadcast(logger=logger) as changes,
        open_bare_nursery() as nursery,
    ):
        yield Live(broadcast, Onlookers(broadcast, changes, nursery), settings)
        nursery.cancel_scope.cancel()


def _as_bytes(state: GetState) -> Callable[[str], Awaitable[bytes | None]]:
    """The state as a message that the envelope tells from what is published."""

    async def get_state(topic: str) -> bytes | None:
        data = await awaitable(state(topic), state)
        return None if data is None else to_json(data).encode()

    return get_state
