"""Redis as a notebook: what is published is kept, numbered, and sent on, all in one step.

This module owns how we follow a topic: what Redis sends, joined to what we read. `scripts` has what
Redis does.

Redis sends each message when it is published. Where we may have missed some, one read brings them:
when Redis has confirmed a subscription, the first or one after a lost connection; when a message
comes that is not the next one; and when one comes of another epoch. It is a read of what follows
the last message that we had. If Redis has nothing between, nothing was missed.

While a topic is being read, what comes for it is held, and follows after what was read. Much of it
may be the same. If it is too much to hold, it is thrown away, and read as well.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, final

import trio
from trio.lowlevel import ParkingLot

from ..._pacing import next_checkpoint
from .._base import Past
from .._envelope import InvalidEnvelope, decode, is_kept, origin_of
from .._incoming import Incoming
from .._interest import Interest
from .._outgoing import Item
from .._places import Places
from .._position import Position
from .address import BrokerRefused, KeyRefused
from .channels import Channels
from .scripts import PUBLISH, READ, Bounds, Portion, Push, mark_in, portion_in, push_in, sha_of

if TYPE_CHECKING:
    from .link import Link, Word

#: How large the answers should be that are on their way at one time, in bytes: enough that a round
#: trip costs each message little, and little enough to hold. While an answer is parsed, it is in
#: memory about three times.
READ_BYTES = 2**20

#: How many topics are read at one time. Each answer may have one message, however large it is.
TOPICS_AT_ONCE = 16

#: How many bytes are held for a topic while it is being read.
HELD_BYTES = 2**20

#: For how many topics it is remembered what we have published there.
MAX_TOPICS = 65_536

#: How often a read of the past begins anew because the history was lost meanwhile.
MAX_ATTEMPTS = 3

#: The mark of a message that we do not know.
UNKNOWN = b"?"

#: More messages than there are in any stream.
ALL = 2**53


@dataclass(slots=True)
class _Published:
    """What we know of a topic from publishing there.

    Attributes:
        acknowledged: the number of our last kept message that Redis has accepted.
        renew_at: when the time to live is to be set again, by trio's clock.
    """

    acknowledged: int = 0
    renew_at: float = -inf


@dataclass(slots=True, eq=False)
class _Track:
    """A topic that Redis is to send us.

    Attributes:
        mark: what tells the message at our place from others.
        reading: whether what comes has to wait, because it is being read what came before.
        held: what has come meanwhile, `held_bytes` together.
        asked: how many of these came before Redis was asked.
        thrown_away: whether there was too much of it.
    """

    mark: bytes = UNKNOWN
    reading: bool = True
    held: list[Push] = field(default_factory=list[Push])
    held_bytes: int = 0
    asked: int = 0
    thrown_away: bool = False

    def hold(self, push: Push) -> None:
        self.held.append(push)
        self.held_bytes += len(push.data)
        if self.held_bytes > HELD_BYTES:
            self.let_go()
            self.thrown_away = True

    def let_go(self) -> list[Push]:
        held, self.held = self.held, []
        self.held_bytes = self.asked = 0
        return held


@final
class Streams:
    """The mode ``"streams"``.

    Args:
        prefix: the beginning of the names of all keys and channels.
        bounds: how much is kept of each topic.
        interest: which topics to follow.
        incoming: counts what comes.
        places: up to where each topic was delivered. It gets the messages that come.
    """

    def __init__(
        self, prefix: str, bounds: Bounds, interest: Interest, incoming: Incoming, places: Places
    ) -> None:
        self._prefix = prefix
        self._bounds = bounds
        self._interest = interest
        self._incoming = incoming
        self._places = places
        self._channels = Channels(f"{prefix}{{", "}", interest)
        self._publish = sha_of(PUBLISH)
        self._read = sha_of(READ)
        self._failovers = 0
        self._tracks: dict[str, _Track] = {}
        #: The topics to read, each with a track. The one that has waited longest comes first.
        self._due: dict[str, None] = {}
        self._became_due = ParkingLot()
        self._published: OrderedDict[str, _Published] = OrderedDict()

    async def start_session(self, link: Link, failovers: int) -> None:
        """Note that the connections are new. Redis may have lost its data, or be another server."""
        self._failovers = failovers
        self._channels.start_session()
        self._due.clear()
        for track in self._tracks.values():
            track.reading = True
            track.let_go()
        for script in (PUBLISH, READ):
            await link.request(b"SCRIPT", b"LOAD", script)

    # -----------------------------------------------------------------------
    # Publishing
    # -----------------------------------------------------------------------

    def command(self, item: Item) -> tuple[Word, ...]:
        """The command that publishes a message."""
        channel = self._channels.name(item.topic)
        if not is_kept(item.data):
            return (b"PUBLISH", channel, item.data)
        published = self._published.setdefault(item.topic, _Published())
        self._published.move_to_end(item.topic)
        if len(self._published) > MAX_TOPICS:
            self._published.popitem(last=False)
        return (
            *(b"EVALSHA", self._publish, 2, *self._keys(item.topic), channel),
            *(origin_of(item.data), item.number, item.data, published.acknowledged),
            self._failovers,
            *(self._bounds.length_word, self._bounds.age_word),
            self._bounds.time_to_live_word(due=self._is_due(published)),
        )

    def _is_due(self, published: _Published) -> bool:
        """Whether to set the time to live again. It costs Redis a fifth of a message."""
        now = trio.current_time()
        if now < published.renew_at:
            return False
        published.renew_at = now + self._bounds.time_to_live / 10
        return True

    def note_sent(self, item: Item) -> None:
        """Note that Redis has accepted a message."""
        published = self._published.get(item.topic)
        if published is not None and is_kept(item.data):
            published.acknowledged = item.number

    # -----------------------------------------------------------------------
    # Following
    # -----------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def listen(self, link: Link, other: Link, *, task_status: trio.TaskStatus[None]) -> None:
        """Follow the topics that are wanted, as they change, until the connection breaks.

        Args:
            link: the connection that listens.
            other: the connection for everything else.
            task_status: told when Redis has subscribed us to all the topics that are wanted now.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.dispatch, self._handle_push)
            await self._channels.follow_all(link)
            nursery.start_soon(self._catch_up, other)
            task_status.started()
            while True:
                back = await self._channels.follow(link)
                self._drop_tracks()
                for topic in back:
                    self._make_due(topic)

    def _drop_tracks(self) -> None:
        wanted = self._interest.wanted
        for topic in [topic for topic in self._tracks if topic not in wanted]:
            del self._tracks[topic]
            self._due.pop(topic, None)

    def _handle_push(self, push: list[Any]) -> None:
        match push:
            case [b"message", bytes(channel), bytes(data)]:
                topic = self._channels.topic(channel)
                track = self._tracks.get(topic)
                if track is not None:
                    self._receive(topic, track, data)
            case [b"subscribe", bytes(channel), _]:
                self._make_due(self._channels.confirm(channel))
            case _:  # the confirmation of UNSUBSCRIBE
                pass

    def _receive(self, topic: str, track: _Track, data: bytes) -> None:
        try:
            push = push_in(data)
        except ValueError as exc:
            self._incoming.complain(topic, str(exc))
        else:
            self._take(topic, track, push)

    def _make_due(self, topic: str) -> None:
        """Have a topic read, if it is still wanted."""
        if topic in self._interest.wanted:
            self._tracks.setdefault(topic, _Track()).reading = True
            self._due[topic] = None
            self._became_due.unpark_all()

    def _take(self, topic: str, track: _Track, push: Push) -> None:
        """Deliver what has come, or read what is missing before it."""
        place = self._places.get(topic)
        if track.reading:
            track.hold(push)
        elif place is None:  # it has just been left
            pass
        elif push.position is None:
            self._pass_on(topic, push.data)
        elif push.position.epoch != place.epoch or not self._places.receive(
            topic, push.data, push.position
        ):
            self._make_due(topic)
            track.hold(push)
        elif push.position.offset > place.offset:
            track.mark = mark_in(push.data)

    def _pass_on(self, topic: str, data: bytes) -> None:
        """Deliver a message that is not kept, unless its publisher repeats it."""
        if self._incoming.has_had(topic, data):
            self._incoming.duplicates += 1
        else:
            self._incoming.note(topic, data)
            self._places.receive(topic, data, None)

    # -----------------------------------------------------------------------
    # Catching up
    # -----------------------------------------------------------------------

    async def _catch_up(self, link: Link) -> None:
        """Read the topics that are due, some at a time, a portion of each."""
        while True:
            while not self._due:
                await self._became_due.park()
            some = list(islice(self._due, TOPICS_AT_ONCE))
            asked = [(topic, self._ask_for_missing(link, topic, len(some))) for topic in some]
            for topic, answer in asked:
                try:
                    portion = portion_in(await link.answer(answer))
                except KeyRefused as exc:  # of this topic only
                    self._give_up(topic, str(exc))
                else:
                    await self._take_portion(topic, portion)

    def _ask_for_missing(self, link: Link, topic: str, topics: int) -> Awaitable[Any]:
        del self._due[topic]
        track, place = self._tracks[topic], self._places.get(topic)
        track.asked = len(track.held)
        track.thrown_away = False
        # Of a history that we do not know, the newest message is enough, for its mark.
        size = READ_BYTES // topics
        return link.ask(*self._command_to_read(topic, place, track.mark, count=1, size=size))

    def _command_to_read(
        self, topic: str, place: Position | None, mark: bytes, *, count: int, size: int
    ) -> tuple[Word, ...]:
        """The command that runs `READ`."""
        return (
            *(b"EVALSHA", self._read, 2, *self._keys(topic)),
            place.epoch if place is not None else "",
            place.offset if place is not None else 0,
            *(mark, self._failovers, os.urandom(6).hex(), count, size),
            *(self._bounds.age_word, self._bounds.time_to_live_word(due=True)),
        )

    async def _take_portion(self, topic: str, portion: Portion) -> None:
        """Deliver what was read, as far as it was missing, and then what came meanwhile."""
        track = self._tracks.get(topic)
        if track is None or topic not in self._interest.wanted:
            return
        if topic in self._due:  # something happened meanwhile: the next answer counts
            return
        end = _end_of(track, portion)
        place = self._places.get(topic)
        if place is None or place.epoch != end.epoch:
            self._attach(topic, track, portion, end)
        elif place.offset < end.offset:
            found = await self._deliver(topic, track, portion, end)
            place = self._places.get(topic)
            if place is None:  # it was left meanwhile
                return
            if place.offset < end.offset and found:
                self._due[topic] = None
                return
            if place.offset < end.offset:  # Redis has trimmed what we had not read
                self._attach(topic, track, portion, end)
        if track.thrown_away:
            self._due[topic] = None
        else:
            self._go_on(topic, track, portion.position)

    def _attach(self, topic: str, track: _Track, portion: Portion, end: Position) -> None:
        track.mark = UNKNOWN
        if portion.entries and portion.entries[-1][0] == end.offset:
            track.mark = mark_in(portion.entries[-1][1])
        self._places.attach(topic, end)

    async def _deliver(self, topic: str, track: _Track, portion: Portion, end: Position) -> bool:
        """Deliver the entries up to `end`. Returns whether there were any, without a hole."""
        for offset, data in portion.entries:
            await next_checkpoint()()
            if offset > end.offset or self._places.get(topic) is None:
                break
            if not self._places.receive(topic, data, Position(end.epoch, offset)):
                return False
            track.mark = mark_in(data)
        return bool(portion.entries)

    def _go_on(self, topic: str, track: _Track, newest: Position) -> None:
        """Deliver what was held, and then what comes."""
        track.reading = False
        self._interest.confirm(topic)
        asked = track.asked
        for index, push in enumerate(track.let_go()):
            # What came before we asked, and is not there, is of an older epoch, or Redis has lost
            # it. To read again would not help.
            if index >= asked or push.position is None or _is_up_to(push.position, newest):
                self._take(topic, track, push)

    def _give_up(self, topic: str, problem: str) -> None:
        """Note that what has the name of a key of ours is something else.

        If that changes, messages come, and they are of another epoch than the one that we make up.
        """
        track = self._tracks.get(topic)
        if track is not None and topic in self._interest.wanted:
            self._incoming.complain(topic, problem)
            track.mark = UNKNOWN
            made_up = Position(os.urandom(6).hex(), 0)
            self._places.attach(topic, made_up)
            self._go_on(topic, track, made_up)

    # -----------------------------------------------------------------------
    # Looking back
    # -----------------------------------------------------------------------

    async def read(self, link: Link, topic: str, after: Position | None, count: int) -> Past:
        """See `Backplane.read`. Reads a portion at a time.

        Raises:
            BrokerLost, BrokerRefused: the broker is away, or it refuses.
        """
        for _ in range(MAX_ATTEMPTS):
            past = await self._try_to_read(link, topic, after, count)
            if past is not None:
                return past
        raise BrokerRefused(f"it loses the history of topic {topic!r} again and again")

    async def _try_to_read(
        self, link: Link, topic: str, after: Position | None, count: int
    ) -> Past | None:
        """What is kept; `None` if a new epoch began meanwhile."""
        newest, entries = await self._read_portion(link, topic, after, count)
        past = _Tail(newest)
        while not past.add(entries):
            portion = await self._read_portion(link, topic, past.place, ALL)
            if portion.position.epoch != newest.epoch:
                return None
            entries = portion.entries
        return Past(newest, tuple(past.messages))

    async def _read_portion(
        self, link: Link, topic: str, after: Position | None, count: int
    ) -> Portion:
        command = self._command_to_read(topic, after, b"", count=count, size=READ_BYTES)
        return portion_in(await link.request(*command))

    def _keys(self, topic: str) -> tuple[str, str]:
        return f"{self._prefix}{{{topic}}}:meta", f"{self._prefix}{{{topic}}}:log"


class _Tail:
    """The newest messages of a history without a hole, as they are read.

    Args:
        newest: the position of the last one.
    """

    def __init__(self, newest: Position) -> None:
        self.messages: list[str | bytes] = []
        self.place = Position(newest.epoch, 0)
        self._newest = newest

    def add(self, entries: list[tuple[int, bytes]]) -> bool:
        """Add entries, the oldest first. Returns whether these were the last."""
        for offset, data in entries:
            if offset > self._newest.offset:
                return True
            if offset != self.place.offset + 1:
                self.messages.clear()
            self.place = Position(self._newest.epoch, offset)
            try:
                self.messages.append(decode(data).message)
            except InvalidEnvelope:  # by somebody else: it is logged where the topic is followed
                self.messages.clear()
        if self.place.offset < self._newest.offset and not entries:
            self.messages.clear()  # the newest one is gone
        return not entries or self.place.offset >= self._newest.offset


def _is_up_to(position: Position, newest: Position) -> bool:
    return position.epoch == newest.epoch and position.offset <= newest.offset


def _end_of(track: _Track, portion: Portion) -> Position:
    """Up to where to read: from there on, all has come by itself, or nothing more is there."""
    position = portion.position
    for held, _ in track.held:
        if held is not None and held.epoch == position.epoch:
            return Position(held.epoch, min(position.offset, held.offset - 1))
    return position
