"""Redis as a notebook: XADD and XREAD.

This module owns the commands of this mode, and where we are in each stream. What is published while
we are not connected is read later, from where we stopped: only what was trimmed away by then is
missing, and then there is a gap notice.

A position is the id of the entry that was read last, and XREAD brings what has a greater one. Such
a position is worth something only as long as that entry, or one that came before it, leads to what
comes next. It is looked at

- when a session begins: Redis may have lost the entry, or all of them, or be another one by now;
- while a backlog is read that is long enough for Redis to have trimmed what we had not read;
- once a second where Redis's clock is behind it. Ids are times, so that a stream which is deleted
  and begun anew continues with greater ones, unless the clock was set back: then it would never be
  heard of again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, final

import trio

from ..._pacing import next_checkpoint
from .._base import HistoryEntry
from .._envelope import InvalidEnvelope, decode
from .._incoming import Incoming
from .._interest import Interest
from .._outgoing import Item
from .._queued import select
from .address import BrokerRefused, KeyRefused
from .portion import READ_BYTES, Portion

if TYPE_CHECKING:
    from .link import Link, Word

#: How long Redis lets one read wait for a message, in milliseconds. A topic that is new here is
#: heard after that at the latest, where we may not cut the wait short.
BLOCK = 1000

#: How many messages of one topic the read that waits asks for at least: one more than comes when
#: nothing is waiting, so that it is known whether something is.
LEAST_PER_TOPIC = 2

#: How many of the last messages a look at the history takes in at least, if they are no more than
#: `READ_BYTES`: a publisher that was cut off sends again, and then a message is there twice.
HISTORY_LOOK = 1000

#: How often the clock is looked at, in seconds, and with it the keys that were no streams.
CHECK_INTERVAL = 1.0

#: How often the wait is cut short, until the reader has seen what is new.
WAKE_INTERVAL = 0.02

#: For how many topics it is remembered when the time to live was last set.
MAX_TOPICS = 65_536

#: The one field of each entry.
FIELD = b"m"

#: Before every id.
BEGINNING = b"0-0"

#: Of an entry: its id; the envelope in it, or `None` if somebody else has written it; its size.
Entry: TypeAlias = "tuple[bytes, bytes | None, int]"


@dataclass(slots=True)
class _Place:
    """Where we are in a stream.

    Attributes:
        position: the id of the entry that was read last.
        anchor: what it was when there was nothing more to read, or when it was looked at.
        read: how many entries were read since.
        silent_at: what it was when the clock was looked at.
    """

    position: bytes
    anchor: bytes = BEGINNING
    read: int = 0
    silent_at: bytes = b""


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
        #: After how many entries of a backlog it is asked whether any was trimmed away. Where less
        #: than the length of the stream is waiting, none was.
        self._look_after = max(1, length / 2)
        self._interest = interest
        self._incoming = incoming
        #: One for each topic. They outlive a connection.
        self._places: dict[str, _Place] = {}
        #: The topics whose stream was looked at in this session, and those of which it was none.
        self._found: dict[str, None] = {}
        self._unreadable: dict[str, None] = {}
        #: Those that may have more to read at once, and those whose position may be worth nothing;
        #: of either, the one that has waited longest comes first.
        self._behind: dict[str, None] = {}
        self._doubtful: dict[str, None] = {}
        self._portion = Portion()
        #: Redis's clock, in milliseconds, and when to look at it again, by ours.
        self._clock = inf
        self._look_at = -inf
        self._expired_at: OrderedDict[str, float] = OrderedDict()

    def start_session(self) -> None:
        """The connections are new ones, and so may be what Redis remembers."""
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
            await self._follow(link)
            await self._look_at_clock(link)
            task_status.started()
            while True:
                await self._read(link)
                await self._follow(link)
                if trio.current_time() >= self._look_at:
                    await self._look_at_clock(link)

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
        """Read once what is waiting, or wait for something."""
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
        except KeyRefused:  # one of them is no stream any more: look at all of them again
            self._found.clear()
            self._behind.clear()

    async def _read_from(
        self, link: Link, topics: list[str], count: int, *, wait: bool = False
    ) -> None:
        # Ids that we know, never "$": what is added between two reads would be lost.
        answer = await link.request(
            b"XREAD",
            *(b"COUNT", count),
            *((b"BLOCK", BLOCK) if wait else ()),
            b"STREAMS",
            *[self._key(topic) for topic in topics],
            *[self._places[topic].position for topic in topics],
        )
        # If there is nothing new, it is nothing.
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
                await self._take(topic, entries)
                await self._look_back(link, topic, len(entries))

    async def _take(self, topic: str, entries: list[Entry]) -> None:
        place = self._places[topic]
        for entry_id, data, _ in entries:
            await next_checkpoint()()
            if topic not in self._interest.wanted:
                return
            # First, lest it comes again after the connection has broken.
            place.position = entry_id
            if data is None:
                self._incoming.complain(topic, "an entry that we did not write")
            else:
                self._incoming.take(topic, data)

    async def _look_back(self, link: Link, topic: str, count: int) -> None:
        """Tell the gap if Redis has trimmed more than we had read.

        It trims the oldest first. So as long as an entry is there, all that came after it is.
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
        """Take note of what is wanted now."""
        wanted = self._interest.wanted
        for topic in self._interest.take_changes():
            if topic not in wanted:
                self._forget(topic)
            elif topic in self._found or topic in self._unreadable:  # it went, and came back
                self._interest.confirm(topic)
        await self._look(
            link,
            [each for each in wanted if each not in self._found and each not in self._unreadable],
        )

    async def _look(self, link: Link, topics: list[str]) -> None:
        """Look where to go on in each of these, a few at a time: a message comes with each id."""
        rest = iter(topics)
        while some := list(islice(rest, self._portion.messages)):
            asked = [(topic, self._ask(link, topic)) for topic in some]
            sizes: list[int] = []
            for topic, answer in asked:
                try:
                    entries = entries_in(await link.answer(answer))
                    sizes += [size for _, _, size in entries]
                    await self._find(link, topic, entries)
                except KeyRefused as exc:  # the other topics go on
                    self._give_up(topic, str(exc))
                self._interest.confirm(topic)
            self._portion.note(sizes, more=True)

    def _ask(self, link: Link, topic: str) -> Awaitable[Any]:
        """Of a stream where we have been, for the entry there or the next; else for the last."""
        place = self._places.get(topic)
        key = self._key(topic)
        if place is None:
            return link.ask(b"XREVRANGE", key, b"+", b"-", b"COUNT", 1)
        return link.ask(b"XRANGE", key, place.position, b"+", b"COUNT", 1)

    async def _find(self, link: Link, topic: str, entries: list[Entry]) -> None:
        """Go on where it is right to go on; `entries` is the answer to `_ask`."""
        place = self._places.get(topic)
        if place is None:
            place = self._places[topic] = _Place(entries[0][0] if entries else BEGINNING)
            for _, data, _ in entries:
                self._incoming.note(topic, data)
        elif place.position != BEGINNING and (not entries or entries[0][0] != place.position):
            # Where we stopped was trimmed away, and maybe more. Or Redis has lost the stream, and
            # what is there by now may be all new.
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
        """The newest entry that has been here. All that came after it is new."""
        async with aclosing(self._read_backwards(link, topic)) as pages:
            async for page in pages:
                for entry_id, data, _ in page:
                    if self._incoming.has_had(topic, data):
                        return entry_id
        return BEGINNING

    def _give_up(self, topic: str, problem: str) -> None:
        """There is no stream under that name; perhaps later, and then it is a new one."""
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
        """Look at the streams that would not be heard of again if they had been deleted.

        Those are few, unless the clock was set back by much: then no more than one portion is
        looked at each time, because a message comes with each.
        """
        before, self._clock = self._clock, milliseconds_in(await link.request(b"TIME"))
        self._look_at = trio.current_time() + CHECK_INTERVAL
        for topic in self._found:
            place = self._places[topic]
            # Where something came meanwhile, the position was right until then.
            silent = place.silent_at == place.position
            earliest = min(before, self._clock) if silent else self._clock
            if time_of(place.position) > earliest:
                self._doubtful[topic] = None
            place.silent_at = place.position
        some = list(islice(self._doubtful, self._portion.messages))
        for topic in some:
            del self._doubtful[topic]
        await self._look(link, [*some, *self._unreadable])

    # -----------------------------------------------------------------------
    # Looking back
    # -----------------------------------------------------------------------

    async def history(
        self, link: Link, topic: str, count: int | None, since: str | None
    ) -> list[HistoryEntry]:
        """See `Backplane.history`. Reads backwards until there is enough."""
        raw: list[bytes] = []
        size = 0
        async with aclosing(self._read_backwards(link, topic)) as pages:
            async for page in pages:
                new = [data for _, data, _ in page if data is not None]
                raw += new
                size += sum(map(len, new))
                # What was sent twice may be in what comes before, and counts there.
                looked = len(raw) >= HISTORY_LOOK or size >= READ_BYTES
                if looked and _is_enough(raw, new, count, since):
                    break
        return select(_without_repeats(reversed(raw)), count, since)

    async def _read_backwards(self, link: Link, topic: str) -> AsyncGenerator[list[Entry], None]:
        """What is in a stream, the newest first, a portion at a time."""
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
    """Raises `BrokerRefused` if it is not what Redis answers."""
    entries: list[Entry] = []
    for each in answer if _is_list(answer) else [None]:
        match each:
            case [bytes(entry_id), [name, bytes(data)]] if name == FIELD:
                entries.append((entry_id, data, len(data)))
            case [bytes(entry_id), [*fields]]:
                size = sum(len(field) for field in fields if isinstance(field, bytes))
                entries.append((entry_id, None, size))
            case _:
                raise BrokerRefused(f"it answered {answer!r:.100}, and not with entries")
    return entries


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _is_dict(value: object) -> TypeGuard[dict[bytes, Any]]:
    return isinstance(value, dict)


def milliseconds_in(answer: Any) -> int:
    """Raises `BrokerRefused` if it is not what Redis answers to TIME."""
    try:
        seconds, microseconds = answer
        return int(seconds) * 1000 + int(microseconds) // 1000
    except (TypeError, ValueError):
        raise BrokerRefused(f"it answered {answer!r:.100}, and not with the time") from None


def time_of(entry_id: bytes) -> int:
    """Redis's clock when it was added, in milliseconds; or later, if the clock was set back.

    Raises `BrokerRefused` if that is no id.
    """
    try:
        return int(entry_id.partition(b"-")[0])
    except ValueError:
        raise BrokerRefused(f"{entry_id!r:.100} is not the id of an entry") from None


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
            if envelope.kept:
                entries.append(HistoryEntry(envelope.id, envelope.message))
    return entries


def _is_enough(raw: list[bytes], new: list[bytes], count: int | None, since: str | None) -> bool:
    """Whether what was read of a history so far, and `new` just now, will do."""
    if since is not None:
        return any(entry.id == since for entry in _without_repeats(reversed(new)))
    return count is not None and len(_without_repeats(reversed(raw))) >= count
