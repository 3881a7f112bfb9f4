"""Redis as a notebook: XADD and XREAD.

This module owns the commands of this mode, and where we are in each stream. What is published while
we are not connected is read later, from where we stopped: only what was trimmed away by then is
missing, and then there is a gap notice.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any, final

import trio

from .._pacing import Pacer
from ._base import HistoryEntry
from ._broker import BrokerRefused, KeyRefused
from ._envelope import InvalidEnvelope, decode
from ._incoming import Incoming
from ._interest import Interest
from ._outgoing import Item
from ._queued import select

if TYPE_CHECKING:
    from ._link import Link, Word

#: How long Redis lets one read wait for a message, in milliseconds. A topic that is new here is
#: heard after that at the latest, where we may not cut the wait short.
BLOCK = 1000

#: How many messages one read brings, of all topics together, and of each one at least one.
MESSAGES_PER_READ = 1024

#: How many messages one look at the history brings.
HISTORY_PAGE = 1000

#: How often the wait is cut short, until the reader has seen what is new.
WAKE_INTERVAL = 0.02

#: For how many topics it is remembered when the time to live was last set.
MAX_TOPICS = 65_536

#: The one field of each entry.
FIELD = b"m"

#: Before every id.
BEGINNING = b"0-0"


@final
class Streams:
    """See the module.

    Args:
        prefix: what the key of every stream begins with.
        length: how many messages each stream keeps, about; `math.inf` for all.
        time_to_live: how many seconds after its last message a stream goes; `math.inf` for never.
        interest: which topics to read.
        incoming: where what comes goes.
    """

    def __init__(
        self,
        prefix: str,
        length: float,
        time_to_live: float,
        interest: Interest,
        incoming: Incoming,
    ) -> None:
        self._prefix = prefix.encode()
        self._trim: tuple[Word, ...] = ()
        if length != inf:
            # About so many: Redis trims whole nodes then, which costs it next to nothing.
            self._trim = (b"MAXLEN", b"~", int(length))
        self._time_to_live = time_to_live
        self._interest = interest
        self._incoming = incoming
        self._pacer = Pacer()
        # The id of the last entry that was read, for each topic. It outlives a connection.
        self._positions: dict[str, bytes] = {}
        # The topics whose stream was looked at in this session, and those of which it was none.
        self._found: set[str] = set()
        self._unreadable: set[str] = set()
        self._expired_at: OrderedDict[str, float] = OrderedDict()

    def start_session(self) -> None:
        """The connections are new ones, and so may be what Redis remembers."""
        self._found.clear()
        self._unreadable.clear()
        self._expired_at.clear()

    # -----------------------------------------------------------------------
    # Publishing
    # -----------------------------------------------------------------------

    def commands(self, item: Item) -> list[tuple[Word, ...]]:
        """What publishes a message, and what keeps its stream from staying for ever."""
        key = self._key(item.topic)
        commands: list[tuple[Word, ...]] = [(b"XADD", key, *self._trim, b"*", FIELD, item.data)]
        if self._is_due(item.topic):
            commands.append((b"EXPIRE", key, max(1, round(self._time_to_live))))
        return commands

    def _is_due(self, topic: str) -> bool:
        """Whether to set the time to live again; not each time, which would be twice the work."""
        now = trio.current_time()
        if now < self._expired_at.get(topic, -inf) + self._time_to_live / 10:
            return False
        self._expired_at[topic] = now
        self._expired_at.move_to_end(topic)
        if len(self._expired_at) > MAX_TOPICS:
            self._expired_at.popitem(last=False)
        return self._time_to_live != inf

    # -----------------------------------------------------------------------
    # Reading
    # -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def listen(self, link: Link, other: Link, *, task_status: trio.TaskStatus[None]) -> None:
        """Read what is wanted, from where we stopped, until the connection breaks.

        Args:
            link: the connection that reads, and waits most of the time.
            other: the connection for everything else.
            task_status: told when it is known where to read all that is wanted now.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake, other, link.client_id)
            await self._find_positions(link)
            task_status.started()
            while True:
                await self._read(link)
                await self._find_positions(link)

    async def _wake(self, other: Link, client_id: int) -> None:
        """Cut short the wait of the reading connection when there is something new to read."""
        while True:
            await self._interest.wait_for_changes()
            try:
                await other.request(b"CLIENT", b"UNBLOCK", client_id)
            except BrokerRefused:  # for want of permission: then it waits for up to `BLOCK`
                return
            await trio.sleep(WAKE_INTERVAL)

    async def _read(self, link: Link) -> None:
        topics = list(self._found)
        if not topics:
            await self._interest.wait_for_changes()
            return
        # Ids that we know, never "$": what is added between two reads would be lost.
        answer: dict[bytes, list[Any]] | None = await link.request(
            b"XREAD",
            *(b"COUNT", max(1, MESSAGES_PER_READ // len(topics))),
            *(b"BLOCK", BLOCK),
            b"STREAMS",
            *[self._key(topic) for topic in topics],
            *[self._positions[topic] for topic in topics],
        )
        for key, entries in (answer or {}).items():
            await self._take(key[len(self._prefix) :].decode(), entries)

    async def _take(self, topic: str, entries: list[Any]) -> None:
        for entry_id, fields in entries:
            await self._pacer.checkpoint()
            if topic not in self._interest.wanted:
                return
            # First, lest it comes again after the connection has broken.
            self._positions[topic] = entry_id
            data = _data_in(fields)
            if data is None:
                self._incoming.complain(topic, "an entry that we did not write")
            else:
                self._incoming.take(topic, data)

    # -----------------------------------------------------------------------
    # Where to begin, and whether it is still there
    # -----------------------------------------------------------------------

    async def _find_positions(self, link: Link) -> None:
        wanted = self._interest.wanted
        for topic in self._interest.take_changes():
            if topic not in wanted:
                self._positions.pop(topic, None)
                self._found.discard(topic)
                self._unreadable.discard(topic)
            elif topic in self._found or topic in self._unreadable:  # it went, and came back
                self._interest.confirm(topic)
        topics = [
            topic for topic in wanted if topic not in self._found and topic not in self._unreadable
        ]
        asked = [
            (
                topic,
                link.ask(b"XREVRANGE", self._key(topic), b"+", b"-", b"COUNT", 1),
                link.ask(b"XRANGE", self._key(topic), *[self._position(topic)] * 2),
            )
            for topic in topics
        ]
        for topic, newest, ours in asked:
            try:
                self._find(topic, await link.answer(newest), await link.answer(ours))
            except KeyRefused as exc:  # the other topics go on
                self._unreadable.add(topic)
                self._incoming.complain(topic, str(exc))
            self._interest.confirm(topic)

    def _position(self, topic: str) -> bytes:
        return self._positions.get(topic, BEGINNING)

    def _find(self, topic: str, newest: list[Any], ours: list[Any]) -> None:
        end = newest[0][0] if newest else BEGINNING
        if topic not in self._positions:
            self._positions[topic] = end
        elif self._positions[topic] != BEGINNING and not ours:
            # Where we stopped was trimmed away, and maybe more. Or Redis has lost the stream, and
            # what is there by now is all new, whatever its ids are.
            self._incoming.announce_gap(topic)
            if _as_pair(end) < _as_pair(self._positions[topic]):
                self._positions[topic] = BEGINNING
        self._found.add(topic)

    # -----------------------------------------------------------------------
    # Looking back
    # -----------------------------------------------------------------------

    async def history(
        self, link: Link, topic: str, count: int | None, since: str | None
    ) -> list[HistoryEntry]:
        """See `Backplane.history`. Reads backwards until there is enough."""
        raw: list[bytes] = []
        end = b"+"
        while True:
            page = await link.request(
                b"XREVRANGE", self._key(topic), end, b"-", b"COUNT", HISTORY_PAGE
            )
            raw += [data for _, fields in page if (data := _data_in(fields)) is not None]
            entries = _without_repeats(reversed(raw))
            if len(page) < HISTORY_PAGE or _is_enough(entries, count, since):
                return select(entries, count, since)
            end = b"(" + page[-1][0]

    def _key(self, topic: str) -> bytes:
        return self._prefix + topic.encode()


def _data_in(fields: Any) -> bytes | None:
    """The envelope in an entry; `None` if somebody else has written it."""
    match fields:
        case [name, bytes(data)] if name == FIELD:
            return data
        case _:
            return None


def _as_pair(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, count = entry_id.partition(b"-")
    return int(milliseconds), int(count)


def _without_repeats(raw: Iterable[bytes]) -> list[HistoryEntry]:
    """What `Incoming` would deliver of these, our own messages included."""
    last: dict[bytes, int] = {}
    entries: list[HistoryEntry] = []
    for data in raw:
        try:
            envelope = decode(data)
        except InvalidEnvelope:  # whoever reads the topic has complained
            continue
        if envelope.number > last.get(envelope.origin, 0):
            last[envelope.origin] = envelope.number
            entries.append(HistoryEntry(envelope.id, envelope.message))
    return entries


def _is_enough(entries: list[HistoryEntry], count: int | None, since: str | None) -> bool:
    if since is not None:
        return any(entry.id == since for entry in entries)
    return count is not None and len(entries) >= count
