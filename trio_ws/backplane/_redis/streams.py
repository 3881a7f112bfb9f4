"""Redis as a notebook: XADD and XREAD.

This module owns the commands of this mode, and our position in each stream. What is published while
we are not connected is read later, from where we stopped. Only what was trimmed away in between is
missing, and then there is a gap notice.

A position is the id of the entry that was read last. XREAD brings the entries with greater ids. If
that entry is gone, messages after it may be gone with it, or new ones may have smaller ids. So the
position is checked

- when a session begins: Redis may have lost the entry or the stream, or be another server;
- while a backlog is read that is so long that Redis may have trimmed what we had not read;
- once a second while Redis's clock is behind the position. Ids are times, so a stream that is
  deleted and begun anew normally goes on with greater ids. If the clock was set back, its ids are
  smaller, and XREAD would never bring them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, final

import trio

from ..._pacing import next_checkpoint
from .._incoming import Incoming
from .._interest import Interest
from .._outgoing import Item
from .address import BrokerRefused, KeyRefused
from .portion import Portion

if TYPE_CHECKING:
    from .link import Link, Word

#: How long one XREAD waits for a message, in milliseconds. Where CLIENT UNBLOCK is not permitted, a
#: new topic is heard after this time at the latest.
BLOCK = 1000

#: For how many messages of one topic the read that waits asks at least. One would be enough for
#: the message that ends the wait; the second shows whether there is a backlog.
LEAST_PER_TOPIC = 2

#: How often Redis's clock is read, in seconds, and keys that were not streams are tried again.
CHECK_INTERVAL = 1.0

#: How often, in seconds, CLIENT UNBLOCK is repeated until the reader has seen the new topics. The
#: reader may not have been waiting yet.
WAKE_INTERVAL = 0.02

#: For how many topics the time of the last EXPIRE is remembered.
MAX_TOPICS = 65_536

#: The name of the one field of each entry.
FIELD = b"m"

#: The id that is smaller than every entry's.
BEGINNING = b"0-0"

#: An entry: its id; its envelope, or `None` if another program has written it; its size in bytes.
Entry: TypeAlias = "tuple[bytes, bytes | None, int]"


@dataclass(slots=True)
class _Place:
    """Where we are in a stream.

    Attributes:
        position: the id of the entry that was read last.
        anchor: the position when there was nothing more to read, or when it was last checked.
        read: how many entries were read since then.
        silent_at: the position when the clock was last read.
    """

    position: bytes
    anchor: bytes = BEGINNING
    read: int = 0
    silent_at: bytes = b""


@final
class Streams:
    """The mode ``"streams"``.

    Args:
        prefix: the beginning of every stream's key.
        length: about how many messages each stream keeps; `math.inf` for all.
        time_to_live: how many seconds after its last message a stream is deleted; `math.inf` for
            never.
        interest: which topics to read.
        incoming: gets the messages that come.
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
            # "~" is for "about": Redis then trims whole nodes, which costs it next to nothing.
            self._trim = (b"MAXLEN", b"~", int(length))
        self._time_to_live = time_to_live
        #: After how many entries of a backlog to ask whether any was trimmed away. None was while
        #: the backlog is shorter than the stream.
        self._look_after = max(1, length / 2)
        self._interest = interest
        self._incoming = incoming
        #: Our place in the stream of each topic. It outlives a connection.
        self._places: dict[str, _Place] = {}
        #: The topics whose stream was found in this session, and those whose key holds no stream.
        self._found: dict[str, None] = {}
        self._unreadable: dict[str, None] = {}
        #: The topics with a backlog, and those whose position may lead nowhere. In both, the topic
        #: that has waited longest comes first.
        self._behind: dict[str, None] = {}
        self._doubtful: dict[str, None] = {}
        self._portion = Portion()
        #: Redis's clock, in milliseconds, and when to read it again, by trio's.
        self._clock = inf
        self._look_at = -inf
        self._expired_at: OrderedDict[str, float] = OrderedDict()

    def start_session(self) -> None:
        """Note that the connections are new. Redis may have lost its data, or be another server."""
        for topics in (self._found, self._unreadable, self._behind, self._doubtful):
            topics.clear()
        self._expired_at.clear()
        self._portion = Portion()
        self._clock = inf
        self._look_at = -inf

    # -----------------------------------------------------------------------
    # Publishing
    # -----------------------------------------------------------------------

    def commands(self, item: Item) -> list[tuple[Word, ...]]:
        """The command that publishes a message, and the one that lets its stream expire."""
        key = self._key(item.topic)
        commands: list[tuple[Word, ...]] = [(b"XADD", key, *self._trim, b"*", FIELD, item.data)]
        if self._is_due(item.topic):
            commands.append((b"EXPIRE", key, max(1, round(self._time_to_live))))
        return commands

    def _is_due(self, topic: str) -> bool:
        """Whether to set the time to live again. Doing so each time would double Redis's work."""
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
        """Read the topics that are wanted, from where we stopped, until the connection breaks.

        Args:
            link: the connection that reads, and waits most of the time.
            other: the connection for everything else.
            task_status: told when the position in each stream that is wanted now is known.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wake, other, link.client_id)
            await self._follow(link)
            await self._look_at_clock(link)
            task_status.started()
            while True:
                await self._read(link)
                await self._follow(link)
                if trio.current_time() >= self._look_at:
                    await self._look_at_clock(link)

    async def _wake(self, other: Link, client_id: int) -> None:
        """Cut short the wait of the reading connection when the topics change."""
        while True:
            await self._interest.wait_for_changes()
            try:
                await other.request(b"CLIENT", b"UNBLOCK", client_id)
            except BrokerRefused:  # not permitted: new topics are read after up to `BLOCK`
                return
            await trio.sleep(WAKE_INTERVAL)

    async def _read(self, link: Link) -> None:
        """Read one portion of what is waiting, or wait for a message."""
        if not self._found:
            with trio.move_on_after(CHECK_INTERVAL):
                await self._interest.wait_for_changes()
            return
        try:
            if self._behind:
                topics = list(islice(self._behind, self._portion.messages))
                await self._read_from(link, topics, self._portion.messages // len(topics))
            topics = [topic for topic in self._found if topic not in self._behind]
            if topics:
                count = max(LEAST_PER_TOPIC, self._portion.messages // len(topics))
                await self._read_from(link, topics, count, wait=not self._behind)
        except KeyRefused:  # a key no longer holds a stream; the error does not say which
            self._found.clear()
            self._behind.clear()

    async def _read_from(
        self, link: Link, topics: list[str], count: int, *, wait: bool = False
    ) -> None:
        # With "$" for the ids, which means the end, entries added between two reads would be lost.
        answer = await link.request(
            b"XREAD",
            *(b"COUNT", count),
            *((b"BLOCK", BLOCK) if wait else ()),
            b"STREAMS",
            *[self._key(topic) for topic in topics],
            *[self._places[topic].position for topic in topics],
        )
        # Without anything new, Redis answers nil instead of an empty map.
        found = answer if _is_dict(answer) else dict[bytes, Any]()
        new = {topic: entries_in(found.get(self._key(topic), [])) for topic in topics}
        for topic, entries in new.items():
            self._behind.pop(topic, None)
            if len(entries) == count:
                self._behind[topic] = None
        self._portion.note(
            [size for entries in new.values() for _, _, size in entries],
            more=any(len(entries) == count for entries in new.values()),
        )
        for topic, entries in new.items():
            if entries:
                await self._deliver(topic, entries)
                await self._look_back(link, topic, len(entries))

    async def _deliver(self, topic: str, entries: list[Entry]) -> None:
        place = self._places[topic]
        for entry_id, data, _ in entries:
            await next_checkpoint()()
            if topic not in self._interest.wanted:
                return
            # First of all: what `Incoming` has seen must not be read again in the next session.
            place.position = entry_id
            if data is None:
                self._incoming.complain(topic, "another program wrote this entry")
            else:
                self._incoming.receive(topic, data)

    async def _look_back(self, link: Link, topic: str, count: int) -> None:
        """Announce a gap if Redis has trimmed entries that we had not read.

        Redis trims the oldest first. So while an entry is there, all entries after it are.
        """
        place = self._places[topic]
        place.read += count
        if topic not in self._behind:
            place.anchor, place.read = place.position, 0
        elif place.read >= self._look_after:
            anchor, place.anchor, place.read = place.anchor, place.position, 0
            key = self._key(topic)
            if anchor != BEGINNING and not await link.request(b"XRANGE", key, anchor, anchor):
                self._incoming.announce_gap(topic)

    # -----------------------------------------------------------------------
    # Where to begin, and whether it is still there
    # -----------------------------------------------------------------------

    async def _follow(self, link: Link) -> None:
        """Find the position in the streams that are newly wanted, and drop the others."""
        wanted = self._interest.wanted
        for topic in self._interest.take_changes():
            if topic not in wanted:
                self._forget(topic)
            elif topic in self._found or topic in self._unreadable:  # it went and came back
                self._interest.confirm(topic)
        await self._look(
            link,
            [each for each in wanted if each not in self._found and each not in self._unreadable],
        )

    async def _look(self, link: Link, topics: list[str]) -> None:
        """Find where to go on in each of these, a few at a time, as each answer has a message."""
        rest = iter(topics)
        while some := list(islice(rest, self._portion.messages)):
            asked = [(topic, self._ask(link, topic)) for topic in some]
            sizes: list[int] = []
            for topic, answer in asked:
                try:
                    entries = entries_in(await link.answer(answer))
                    sizes += [size for _, _, size in entries]
                    await self._find(link, topic, entries)
                except KeyRefused as exc:  # of this topic only
                    self._give_up(topic, str(exc))
                self._interest.confirm(topic)
            self._portion.note(sizes, more=True)

    def _ask(self, link: Link, topic: str) -> Awaitable[Any]:
        """Ask for the entry at our position or the next one; in a new stream, for the last one."""
        place = self._places.get(topic)
        key = self._key(topic)
        if place is None:
            return link.ask(b"XREVRANGE", key, b"+", b"-", b"COUNT", 1)
        return link.ask(b"XRANGE", key, place.position, b"+", b"COUNT", 1)

    async def _find(self, link: Link, topic: str, entries: list[Entry]) -> None:
        """Set the position from which to read. `entries` is the answer to `_ask`."""
        place = self._places.get(topic)
        if place is None:
            place = self._places[topic] = _Place(entries[0][0] if entries else BEGINNING)
            for _, data, _ in entries:
                self._incoming.note(topic, data)
        elif place.position != BEGINNING and (not entries or entries[0][0] != place.position):
            # The entry where we stopped was trimmed away, and maybe more. Or Redis has lost the
            # stream, and everything in it may be new.
            self._incoming.announce_gap(topic)
            if not entries:
                place.position = await self._find_known(link, topic)
        elif topic in self._found:
            return
        place.anchor, place.read = place.position, 0
        self._unreadable.pop(topic, None)
        self._found[topic] = None
        self._behind[topic] = None

    async def _find_known(self, link: Link, topic: str) -> bytes:
        """The id of the newest entry that was here before. Everything after it is new."""
        async with aclosing(self._read_backwards(link, topic)) as pages:
            async for page in pages:
                for entry_id, data, _ in page:
                    if self._incoming.has_had(topic, data):
                        return entry_id
        return BEGINNING

    def _give_up(self, topic: str, problem: str) -> None:
        """Note that the key holds no stream. If there is one later, it is a new one."""
        place = self._places.get(topic)
        if place is not None and place.position != BEGINNING:
            self._incoming.announce_gap(topic)
        if topic not in self._unreadable:
            self._incoming.complain(topic, problem)
        self._forget(topic)
        self._places[topic] = _Place(BEGINNING)
        self._unreadable[topic] = None

    def _forget(self, topic: str) -> None:
        self._places.pop(topic, None)
        for topics in (self._found, self._unreadable, self._behind, self._doubtful):
            topics.pop(topic, None)

    async def _look_at_clock(self, link: Link) -> None:
        """Check the streams whose new entries, had they been deleted, would not be seen.

        Those are few, unless the clock was set back by much. At most one portion of them is checked
        each time, because each answer has a message.
        """
        before, self._clock = self._clock, milliseconds_in(await link.request(b"TIME"))
        self._look_at = trio.current_time() + CHECK_INTERVAL
        for topic in self._found:
            place = self._places[topic]
            # If an entry came since the last check, the position was good until that moment.
            silent = place.silent_at == place.position
            earliest = min(before, self._clock) if silent else self._clock
            if time_of(place.position) > earliest:
                self._doubtful[topic] = None
            place.silent_at = place.position
        some = list(islice(self._doubtful, self._portion.messages))
        for topic in some:
            del self._doubtful[topic]
        await self._look(link, [*some, *self._unreadable])

    async def _read_backwards(self, link: Link, topic: str) -> AsyncGenerator[list[Entry], None]:
        """The entries of a stream, the newest first, a portion at a time."""
        portion = Portion()
        end = b"+"
        while True:
            asked = portion.messages
            page = entries_in(
                await link.request(b"XREVRANGE", self._key(topic), end, b"-", b"COUNT", asked)
            )
            portion.note([size for _, _, size in page], more=True)
            if page:
                end = b"(" + page[-1][0]
                yield page
            if len(page) < asked:
                return

    def _key(self, topic: str) -> bytes:
        return self._prefix + topic.encode()


def entries_in(answer: Any) -> list[Entry]:
    """The entries in an answer to XREAD or XRANGE.

    Raises:
        BrokerRefused: this is not such an answer.
    """
    entries: list[Entry] = []
    for each in answer if _is_list(answer) else [None]:
        match each:
            case [bytes(entry_id), [name, bytes(data)]] if name == FIELD:
                entries.append((entry_id, data, len(data)))
            case [bytes(entry_id), [*fields]]:
                size = sum(len(field) for field in fields if isinstance(field, bytes))
                entries.append((entry_id, None, size))
            case _:
                raise BrokerRefused(f"it answered {answer!r:.100} instead of entries")
    return entries


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_dict(value: object) -> TypeGuard[dict[bytes, Any]]:
    return isinstance(value, dict)


def milliseconds_in(answer: Any) -> int:
    """The time in an answer to TIME, in milliseconds.

    Raises:
        BrokerRefused: this is not such an answer.
    """
    try:
        seconds, microseconds = answer
        return int(seconds) * 1000 + int(microseconds) // 1000
    except (TypeError, ValueError):
        raise BrokerRefused(f"it answered {answer!r:.100} instead of the time") from None


def time_of(entry_id: bytes) -> int:
    """Redis's clock when an entry was added, in milliseconds; or later, if the clock was set back.

    Raises:
        BrokerRefused: this is not the id of an entry.
    """
    try:
        return int(entry_id.partition(b"-")[0])
    except ValueError:
        raise BrokerRefused(f"{entry_id!r:.100} is not the id of an entry") from None
