"""`open_broadcast`: the block around a broadcast, and its tasks.

This module owns how long a broadcast lives. What it does is in `broadcast`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable

from .._log import LoggerLike
from .._metering import METER, measured
from .._nursery import open_bare_nursery, protected_context
from ..backplane._base import Backplane
from .broadcast import Broadcast
from .catching_up import GetState
from .encoding import Envelope
from .policies import Disconnect, Limits, SlowReaderPolicy
from .settings import (
    MAX_IDLE_TOPICS,
    MAX_QUEUED_BYTES,
    MAX_QUEUED_MESSAGES,
    MAX_RECOVERED,
    PRESENCE_LEASE,
    Settings,
)
from .tally import Dropped


@protected_context
async def open_broadcast(
    *,
    policy: SlowReaderPolicy | None = None,
    max_queued_messages: float = MAX_QUEUED_MESSAGES,
    max_queued_bytes: float = MAX_QUEUED_BYTES,
    history: int = 0,
    max_recovered: int = MAX_RECOVERED,
    max_idle_topics: float = MAX_IDLE_TOPICS,
    envelope: Envelope | None = None,
    state: GetState | None = None,
    on_drop: Callable[[Dropped], object] | None = None,
    on_change: Callable[[Broadcast, str], object] | None = None,
    on_gap: Callable[[Broadcast, str | None], object] | None = None,
    backplane: Backplane | None = None,
    presence_lease: float = PRESENCE_LEASE,
    logger: LoggerLike | None = None,
) -> AsyncGenerator[Broadcast, None]:
    """Publish to many connections at once, for as long as a block goes on::

        async with open_broadcast() as broadcast:

            async def relay(ws):
                with broadcast.subscribe(ws, "all"):
                    async for message in ws:
                        broadcast.publish(message, "all")

            await serve_websocket(relay, "localhost", 8765)

    Leaving the block ends every subscription and every channel, and waits for nothing. Messages
    that wait for connections are still sent as long as these live. Only where members of this
    process are known to others, it waits for up to a second until the backplane has taken what is
    to be told of them.

    A connection is slow while its socket takes no more. Published messages then wait for it, up to
    the bounds. Beyond these, the policy acts. The bounds are for each connection. The system holds
    more in its buffers, which they do not count.

    Args:
        policy: what to do about a subscriber that is too slow: by default
            ``Disconnect(1013, "too slow")``, because then nothing is missing without notice. Each
            subscription may have its own policy.
        max_queued_messages: how many messages may wait for one connection or channel.
        max_queued_bytes: how many bytes may. Where nothing waits, one message may be larger.
        history: how many messages a topic keeps, its last ones, to be sent to new subscribers.
        max_recovered: how many messages a client that comes back may have missed, if the backplane
            keeps positions: that many are read from it at most. 0 reads none but the history.
        max_idle_topics: how many topics without subscribers keep their history. The least recently
            used is forgotten first.
        envelope: ``envelope(message, position, topic)``, called with each message. What it returns
            goes out instead. In this way clients learn the positions, to come back with one. It
            must not publish to the topic.
        state: ``await state(topic)`` gives the state of a topic as a message, or `None` if it has
            none. A subscriber that is not `recovered` is sent this, through `envelope`, instead of
            the history. It is called after the position was taken that goes with it, once for all
            who need it at the same moment, and followed by all that came after that position.
        on_drop: ``on_drop(dropped)``, called with a `Dropped` for each message that a subscriber
            did not get because it was slow. Messages replaced under `Latest` are only counted.
        on_change: ``on_change(broadcast, topic)``, called when a connection has subscribed to the
            topic or is no longer subscribed. It may publish.
        on_gap: ``on_gap(broadcast, topic)``, called when messages may be missing that other
            processes published; the topic is `None` for all topics. With `state`, the subscribers
            are sent that again by themselves.
        backplane: joins this broadcast with those of other processes.
        presence_lease: after how many seconds without a word of a process its members are gone, and
            how long a member stays whose client was told to come back. A process that is busy or
            stopped for as long is gone until it has spoken again.
        logger: where exceptions of these functions go, or a `logging.LoggerAdapter`; ``trio_ws`` by
            default.

    These functions, `state` aside, must not wait. Their exceptions are logged. Their signatures are
    checked when the block is entered.

    Raises:
        TypeError, ValueError: an argument is wrong.
        BackplaneError: the backplane's broker refused us at the start.
    """
    meter = METER.get()
    settings = Settings(
        limits=Limits(
            Disconnect() if policy is None else policy, max_queued_messages, max_queued_bytes
        ),
        history=history,
        max_recovered=max_recovered,
        max_idle_topics=max_idle_topics,
        envelope=envelope,
        state=state,
        on_drop=on_drop,
        on_change=on_change,
        on_gap=on_gap,
        backplane=backplane,
        presence_lease=presence_lease,
        logger=logging.getLogger("trio_ws") if logger is None else logger,
        meter=meter,
    )
    broadcast = Broadcast(settings)
    with measured(broadcast._measure, meter):
        try:
            if backplane is None and state is None:
                yield broadcast
            else:
                async with open_bare_nursery() as nursery:
                    await broadcast._start(nursery)
                    try:
                        yield broadcast
                    finally:
                        broadcast._end()
                        await broadcast._say_goodbye()
                        nursery.cancel_scope.cancel()
        finally:
            broadcast._end()
