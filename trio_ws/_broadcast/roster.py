"""Who is there: what this process knows of itself and of others, and what it has to tell.

This module owns the rules, as plain state: what happens goes in, with the time, and what is to be
told comes out. It knows neither trio nor backplanes; `heralds` speaks with the other processes.

Who told what, and until when it is believed:

- Each process tells its *own* members of a topic: changes as they happen, with the version that
  they lead from and to. A process that hears a change that does not follow what it has asks for the
  list. Every few seconds comes a digest, which is only the version, so that a loss that nobody has
  noticed mends itself.
- A process that has members says regularly that it is alive. After a lease without a word, what it
  told is not believed any more, whatever the topic.
- The name of a process, its *origin*, is random and for one broadcast. One that is restarted is
  another one, so that what is late from the old one is never taken for the new.
- The same id may be there several times, here and elsewhere. It leaves with the last, and its value
  is that of the one who came last. For that, entries have stamps: milliseconds of the wall clock,
  pushed ahead of all that was heard, so that what follows from something has the greater stamp even
  where clocks differ.
- A member whose connection this side closed for a restart *lingers*: it stays for a lease, or
  until it is seen again with a greater stamp, here or elsewhere. A process that ends leaves those
  that linger to all others in its *will*, also those of topics that nobody there is in yet: its
  clients may come to any of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Any, Final, final

from .._json import same_json
from .presence_messages import (
    MOST_MEMBERS,
    Ask,
    Beat,
    Change,
    Digest,
    Entry,
    Hello,
    Listing,
    Members,
    Message,
    Will,
    portions,
)

#: How many times in a lease a process says that it is alive: two of these may be lost or late.
BEATS_PER_LEASE: Final = 10 / 3

#: How many seconds pass at most between two looks at what is due.
LONGEST_TICK: Final = 0.5

#: How many digests a process sends each second at most. Up to 600 topics, each has its digest with
#: every beat of the default lease; with 10,000 it is every 50 s.
DIGESTS_PER_SECOND: Final = 200.0

#: How long what was told of one topic is believed, in seconds, while the process is alive and does
#: not repeat it. Only a loss of more than 30 s that nobody noticed makes it count.
LONGEST_WORD: Final = 600.0

#: Whoever asks for a list within this time of another who has asked shares the answer.
LIST_INTERVAL: Final = 0.5

#: For how many seconds a topic is kept up to date after somebody has looked at it.
LOOKED_AT: Final = 30.0

#: How many such topics there may be.
MAX_LOOKED_AT: Final = 1024

#: How many processes that have ended are remembered, so that nothing late brings them back.
MAX_ENDED: Final = 4096

#: How far a stamp may be ahead of our clock, in milliseconds, to push ours. A day is more than
#: clocks differ by, and what is not a stamp pushes nothing to where JSON ends.
FARTHEST_AHEAD: Final = 86_400_000

NOBODY: Final[Mapping[str, Any]] = MappingProxyType({})

#: Is equal to no member's value.
_ABSENT: Final = object()


@final
class Seat:
    """One `Broadcast.join` of this process."""

    __slots__ = ("entry", "member_id", "until")

    def __init__(self, member_id: str, entry: Entry) -> None:
        self.member_id: str = member_id
        self.entry: Entry = entry
        #: When it stops to linger; infinite while its block goes on.
        self.until: float = inf


class Teller:
    """What another process has told about a topic."""

    __slots__ = ("asked", "entries", "parts", "told", "version", "version_of_parts")

    def __init__(self, now: float) -> None:
        self.version: int = 0
        self.entries: dict[str, Entry] = {}
        #: When it was last known to be right.
        self.told: float = now
        self.asked: float = -inf
        #: Of a list that has not come completely.
        self.parts: dict[int, Members] = {}
        self.version_of_parts: int = 0


class Place:
    """Who is in one topic."""

    __slots__ = (
        "_shown",
        "asks",
        "asks_all",
        "changed",
        "compared",
        "digest_due",
        "holders",
        "lingering",
        "list_due",
        "listed",
        "looked_at",
        "members",
        "name",
        "seats",
        "settles",
        "tellers",
        "told",
        "version",
    )

    def __init__(self, name: str, now: float) -> None:
        self.name: str = name
        #: Here, by id.
        self.seats: dict[str, list[Seat]] = {}
        #: Those of them that linger, the first to end first.
        self.lingering: OrderedDict[Seat, None] = OrderedDict()
        #: What others know of that, if they have heard all, and the version of it.
        self.told: dict[str, Entry] = {}
        self.version: int = 0
        #: The ids of which something may have to be told.
        self.changed: dict[str, None] = {}
        self.digest_due: float = now
        self.list_due: bool = False
        self.listed: float = -inf
        #: Whom to ask for lists.
        self.asks: dict[str, None] = {}
        self.asks_all: bool = False
        self.tellers: dict[str, Teller] = {}
        #: By id, who says that it is there: origins, one with a will among them perhaps.
        self.holders: dict[str, dict[str, Entry]] = {}
        #: What comes of all that: the value of each id.
        self.members: dict[str, Any] = {}
        self._shown: Mapping[str, Any] | None = NOBODY
        #: What was shown before, by its id, with what has changed since: many tasks ask for the
        #: same.
        self.compared: dict[int, tuple[Mapping[str, Any], Any]] = {}
        self.looked_at: float = now
        #: When the others have had time to answer.
        self.settles: float = -inf

    def show(self) -> Mapping[str, Any]:
        """The members, as they are now and will stay in what this returns."""
        if self._shown is None:
            self._shown = MappingProxyType(self.members.copy())
        return self._shown

    def note_change(self) -> None:
        self._shown = None
        self.compared.clear()

    @property
    def next_end(self) -> float:
        """When the first of those that linger here goes."""
        return next(iter(self.lingering)).until if self.lingering else inf

    @property
    def is_empty(self) -> bool:
        """Whether nobody is here, and everybody was told so."""
        return not (self.seats or self.told or self.changed)


class Legacy:
    """The will of a process that has ended."""

    __slots__ = ("due", "is_complete", "topics", "until")

    def __init__(self, until: float) -> None:
        self.until: float = until
        self.topics: dict[str, dict[str, Entry]] = {}
        self.is_complete: bool = False
        #: A new process wants to know it.
        self.due: bool = False


@final
class Roster:
    """All topics of this process, and all other processes.

    Args:
        origin: the name of this process.
        lease: for how many seconds what it says is believed.
        wall: gives milliseconds since 1970.
        changed: called with a topic in which somebody came or left, or has another value.
        alone: there are no others, to whom anything would be told.
    """

    def __init__(
        self,
        origin: str,
        lease: float,
        wall: Callable[[], int],
        changed: Callable[[str], None],
        *,
        alone: bool,
    ) -> None:
        self.origin: str = origin
        self.lease: float = lease
        self.tick_interval: float = min(lease / 20, LONGEST_TICK)
        #: Silence of this length is the end. It is noticed at the next tick, within the lease.
        self._longest_silence: float = lease - 2 * self.tick_interval
        self._wall: Callable[[], int] = wall
        self._tell_changed: Callable[[str], None] = changed
        self._alone: bool = alone
        self._stamp: int = 0
        #: Ordered by when their next digest is due.
        self.places: OrderedDict[str, Place] = OrderedDict()
        #: Those with something to tell, and those that were asked for a list too often.
        self._news: dict[str, None] = {}
        self._lists_due: dict[str, None] = {}
        #: Until when each other process is believed to be alive.
        self._lives: dict[str, float] = {}
        self._leases: dict[str, float] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.wills: dict[str, Legacy] = {}
        #: The seats that linger, the first to end first.
        self._lingering: OrderedDict[Seat, Place] = OrderedDict()
        self._next_beat: float = -inf
        self._next_sweep: float = -inf
        self._says_hello: bool = False
        self.seats: int = 0

    # Somebody comes or goes here…

    def open(self, topic: str, now: float) -> Place:
        """The place of a topic; a new one asks everybody as soon as it may, see `ask`."""
        place = self.places.get(topic)
        if place is None:
            place = self.places[topic] = Place(topic, now)
            for origin, legacy in self.wills.items():
                for member_id, entry in legacy.topics.get(topic, {}).items():
                    self._hold(place, member_id, origin, entry)
        return place

    def sit(self, topic: str, member_id: str, value: Any, now: float) -> Seat:
        place = self.open(topic, now)
        seat = Seat(member_id, Entry(self._next_stamp(), value))
        place.seats.setdefault(member_id, []).append(seat)
        self.seats += 1
        self._reseat(place, member_id)
        return seat

    def change_value(self, topic: str, seat: Seat, value: Any) -> None:
        place = self.places[topic]
        seat.entry = Entry(self._next_stamp(), value)
        seats = place.seats[seat.member_id]
        seats.remove(seat)
        seats.append(seat)
        self._reseat(place, seat.member_id)

    def rise(self, topic: str, seat: Seat, now: float, *, lingers: bool) -> None:
        """The block of a seat was left. It may stay for a while."""
        place = self.places[topic]
        if lingers:
            seat.until = now + self.lease
            self._lingering[seat] = place
            place.lingering[seat] = None
            self._look_again(place, seat.member_id)
            self._tell_changed(topic)  # whoever waits has to see the end of it
        else:
            self._remove(place, seat)
            self._reseat(place, seat.member_id)
        self._tidy(place)

    def _tidy(self, place: Place) -> None:
        """Where others have to be told, `forget` does this later."""
        if self._alone and not place.seats:
            del self.places[place.name]

    def _remove(self, place: Place, seat: Seat) -> None:
        seats = place.seats[seat.member_id]
        seats.remove(seat)
        self.seats -= 1
        self._lingering.pop(seat, None)
        place.lingering.pop(seat, None)
        if not seats:
            del place.seats[seat.member_id]

    def _reseat(self, place: Place, member_id: str) -> None:
        """A seat came, went or changed: what is held in our own name follows."""
        seats = place.seats.get(member_id)
        entry = seats[-1].entry if seats else None
        self._note_change(place, member_id)
        self._hold(place, member_id, self.origin, entry)

    def _note_change(self, place: Place, member_id: str) -> None:
        """What we tell of a member may be another thing now."""
        if not self._alone:
            place.changed[member_id] = None
            self._news[place.name] = None

    def _next_stamp(self) -> int:
        self._stamp = max(self._stamp + 1, self._wall())
        return self._stamp

    # What comes of it…

    def _hold(self, place: Place, member_id: str, origin: str, entry: Entry | None) -> None:
        """Somebody says that a member is there, or with `None` that it is not any more."""
        holders = place.holders.setdefault(member_id, {})
        if entry is None:
            holders.pop(origin, None)
        else:
            holders[origin] = entry
            if entry.stamp < self._wall() + FARTHEST_AHEAD:
                self._stamp = max(self._stamp, entry.stamp)
        self._look_again(place, member_id)

    def _look_again(self, place: Place, member_id: str) -> None:
        holders = place.holders[member_id]
        self._drop_what_lingers(place, member_id, holders)
        before = place.members.get(member_id, _ABSENT)
        value: object
        if holders:
            _, (_, value) = max(holders.items(), key=_by_stamp)
            place.members[member_id] = value
        else:
            value = _ABSENT
            del place.holders[member_id]
            place.members.pop(member_id, None)
        if not same_json(value, before):
            place.note_change()
            self._tell_changed(place.name)

    def _drop_what_lingers(self, place: Place, member_id: str, holders: dict[str, Entry]) -> None:
        """What lingers goes as soon as the member is seen with a greater stamp."""
        wills = [origin for origin in holders if origin in self.wills]
        seen = [entry.stamp for origin, entry in holders.items() if origin not in self.wills]
        newest = max(seen, default=-1)
        for origin in wills:
            if holders[origin].stamp < newest:
                del holders[origin]
                self.wills[origin].topics.get(place.name, {}).pop(member_id, None)
        late = [
            seat
            for seat in place.seats.get(member_id, ())
            if seat.until < inf and seat.entry.stamp < newest
        ]
        for seat in late:
            self._remove(place, seat)
        if late:
            seats = place.seats.get(member_id)
            if seats:
                holders[self.origin] = seats[-1].entry
            else:
                del holders[self.origin]
            self._note_change(place, member_id)

    # Others speak…

    def ask(self, topic: str, settles: float) -> None:
        """Have everybody asked who is in a topic. The answers will be there when it `settles`."""
        if topic in self.places:
            self.places[topic].asks_all = True
            self.places[topic].settles = settles
            self._news[topic] = None

    def greet(self) -> None:
        """Have the others told that this process is new."""
        self._says_hello = True
        self._news[""] = None

    @property
    def knows_others(self) -> bool:
        """Whether another process is known to have members somewhere."""
        return bool(self._lives)

    def hear(self, topic: str | None, origin: str, message: Message | None, now: float) -> None:
        """Another process has spoken, on a topic or with `None` to all."""
        if origin == self.origin:
            return
        if topic is None and isinstance(message, Will):
            self._inherit(origin, message, now)
            return
        if origin in self._ended:
            return
        if isinstance(message, Beat):
            self._leases[origin] = message.lease
        if not isinstance(message, (Ask, Hello)):  # who asks need not have any members
            self._lives[origin] = now + self._leases.get(origin, self._longest_silence)
        if topic is None:
            if isinstance(message, Hello):
                self._next_beat = now
                self._news[""] = None
                for legacy in self.wills.values():
                    legacy.due = legacy.is_complete
            return
        place = self.places.get(topic)
        if place is not None:
            match message:
                case Change():
                    self._follow(place, origin, message, now)
                case Listing():
                    self._collect(place, origin, message, now)
                case Digest(version):
                    self._compare(place, origin, version, now)
                case Ask(whom):
                    self._be_asked(place, whom)
                case _:
                    pass

    def _follow(self, place: Place, origin: str, change: Change, now: float) -> None:
        teller = place.tellers.get(origin)
        if teller is None:
            teller = place.tellers[origin] = Teller(now)
        anew = not change.base and change.version > teller.version
        if anew or change.base == teller.version:
            gone = [*teller.entries] if anew else change.gone
            self._believe(place, origin, teller, change.came, gone)
            teller.version = change.version
            teller.told = now
        else:
            self._compare(place, origin, change.version, now)

    def _collect(self, place: Place, origin: str, listing: Listing, now: float) -> None:
        teller = place.tellers.get(origin)
        if teller is None:
            teller = place.tellers[origin] = Teller(now)
        if listing.version < teller.version:
            return
        if listing.version == teller.version:
            teller.told = now
            return
        if teller.version_of_parts != listing.version:
            if teller.version_of_parts > listing.version:
                return
            teller.version_of_parts = listing.version
            teller.parts = {}
        teller.parts[listing.part] = listing.members
        if len(teller.parts) == listing.parts:
            came = {key: entry for part in teller.parts.values() for key, entry in part.items()}
            gone = [member_id for member_id in teller.entries if member_id not in came]
            teller.parts = {}
            self._believe(place, origin, teller, came, gone)
            teller.version = listing.version
            teller.told = now

    def _compare(self, place: Place, origin: str, version: int, now: float) -> None:
        """Ask for the list, if what is known is older than this version."""
        teller = place.tellers.get(origin)
        if teller is None:
            teller = place.tellers[origin] = Teller(now)
        if teller.version == version:
            teller.told = now
        elif teller.version < version and now >= teller.asked + LIST_INTERVAL:
            teller.asked = now
            place.asks[origin] = None
            self._news[place.name] = None

    def _be_asked(self, place: Place, whom: frozenset[str] | None) -> None:
        if self.origin in whom if whom is not None else place.told:
            place.list_due = True
            self._news[place.name] = None

    def _believe(
        self,
        place: Place,
        origin: str,
        teller: Teller,
        came: Members,
        gone: list[str] | tuple[str, ...],
    ) -> None:
        for member_id in gone:
            if member_id not in came and teller.entries.pop(member_id, None) is not None:
                self._hold(place, member_id, origin, None)
        for member_id, entry in came.items():
            if teller.entries.get(member_id) != entry:
                teller.entries[member_id] = entry
                self._hold(place, member_id, origin, entry)

    def _inherit(self, teller: str, will: Will, now: float) -> None:
        origin = will.of
        if origin == self.origin:
            return
        legacy = self.wills.get(origin)
        if legacy is None:
            if origin in self._ended:
                return  # and it was all seen elsewhere, or is over
            legacy = self.wills[origin] = Legacy(now + will.lease)
        legacy.due = False  # somebody has told it to all who are new
        if legacy.is_complete:
            return
        for topic, members in will.topics.items():
            legacy.topics.setdefault(topic, {}).update(members)
            place = self.places.get(topic)
            if place is not None:
                for member_id, entry in members.items():
                    self._hold(place, member_id, origin, entry)
        if will.last:
            self._complete(origin, legacy)

    def _complete(self, origin: str, legacy: Legacy) -> None:
        """The will is here. What it does not name has gone."""
        legacy.is_complete = True
        self._end(origin)
        for place in self.places.values():
            teller = place.tellers.pop(origin, None)
            if teller is not None:
                kept = legacy.topics.get(place.name, {})
                for member_id in teller.entries:
                    if member_id not in kept:
                        self._hold_no_more(place, member_id, origin)

    def _hold_no_more(self, place: Place, member_id: str, origin: str) -> None:
        if origin in place.holders.get(member_id, ()):
            self._hold(place, member_id, origin, None)

    def _end(self, origin: str) -> None:
        """A process is over for good."""
        self._lives.pop(origin, None)
        self._leases.pop(origin, None)
        self._ended[origin] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    # Time passes…

    def expire_ours(self, now: float) -> None:
        """Let go of what has lingered here for long enough."""
        while self._lingering:
            seat, place = next(iter(self._lingering.items()))
            if seat.until > now:
                break
            self._remove(place, seat)
            self._reseat(place, seat.member_id)
            self._tidy(place)

    def expire(self, now: float) -> None:
        """Stop to believe what has not been repeated."""
        self.expire_ours(now)
        for origin, legacy in [*self.wills.items()]:
            if legacy.until <= now:
                self._disinherit(origin, legacy)
        silent = [origin for origin, until in self._lives.items() if until <= now]
        for origin in silent:
            del self._lives[origin]
            self._leases.pop(origin, None)
            if origin in self.wills:  # the rest of its will has not come
                self._complete(origin, self.wills[origin])
        if silent:
            for place in self.places.values():
                for origin in silent:
                    self._dismiss(place, origin)
        if now >= self._next_sweep:
            self._next_sweep = now + LONGEST_WORD / 10
            for place in self.places.values():
                for origin, teller in [*place.tellers.items()]:
                    if teller.told < now - LONGEST_WORD:
                        self._dismiss(place, origin)

    def _dismiss(self, place: Place, origin: str) -> None:
        teller = place.tellers.pop(origin, None)
        if teller is not None:
            for member_id in teller.entries:
                self._hold(place, member_id, origin, None)

    def _disinherit(self, origin: str, legacy: Legacy) -> None:
        if not legacy.is_complete:
            self._complete(origin, legacy)
        del self.wills[origin]
        for topic, members in legacy.topics.items():
            place = self.places.get(topic)
            if place is not None:
                for member_id in members:
                    self._hold_no_more(place, member_id, origin)

    def resume(self, now: float) -> None:
        """We were deaf for a while: do not blame the others, and tell them that we are there."""
        for origin in self._lives:
            self._lives[origin] = now + self._leases.get(origin, self._longest_silence)
        self._next_beat = now
        for place in self.places.values():
            place.digest_due = now

    # What is to be told…

    @property
    def has_news(self) -> bool:
        return bool(self._news)

    def news(self, now: float) -> Iterator[tuple[str | None, Message]]:
        """What has changed since it was last asked, with the topic or `None` for all processes.

        A list takes several messages. Whoever tells them lets no other run between the first and
        the last, or does not call this before it is through.
        """
        names, self._news = self._news, {}
        if self._says_hello and "" in names:
            self._says_hello = False
            yield None, Hello()
        yield from self._beats(now)
        for name in names:
            place = self.places.get(name)
            if place is not None:
                for message in self._news_of(place, now):
                    yield name, message

    def _news_of(self, place: Place, now: float) -> Iterator[Message]:
        yield from self._changes(place, now)
        if place.asks_all:
            yield Ask(None)
        elif place.asks:
            yield Ask(frozenset(place.asks))
        place.asks_all = False
        place.asks = {}
        if place.list_due:
            if now >= place.listed + LIST_INTERVAL:
                place.list_due = False
                place.listed = now
                yield from self._lists(place)
            else:
                self._lists_due[place.name] = None

    def _changes(self, place: Place, now: float) -> Iterator[Message]:
        came: dict[str, Entry] = {}
        gone: list[str] = []
        changed, place.changed = place.changed, {}
        for member_id in changed:
            entry = place.holders.get(member_id, {}).get(self.origin)
            if entry is None and place.told.pop(member_id, None) is not None:
                gone.append(member_id)
            elif entry is not None and entry != place.told.get(member_id):
                place.told[member_id] = entry
                came[member_id] = entry
        if not came and not gone:
            return
        self._put_off_digest(place, now)
        for portion in portions(came.items()):
            some, gone = gone[:MOST_MEMBERS], gone[MOST_MEMBERS:]
            yield self._change(place, portion, some)
        while gone:
            some, gone = gone[:MOST_MEMBERS], gone[MOST_MEMBERS:]
            yield self._change(place, {}, some)

    def _change(self, place: Place, came: Members, gone: list[str]) -> Change:
        base, place.version = place.version, self._next_stamp()
        return Change(base, place.version, came, tuple(gone))

    def _lists(self, place: Place) -> Iterator[Message]:
        # A process that has told nothing yet may be asked for what one before it told.
        version = place.version or self._next_stamp()
        place.version = version
        parts = [*portions(place.told.items())]
        for part, members in enumerate(parts):
            yield Listing(version, part, len(parts), members)

    def _put_off_digest(self, place: Place, now: float) -> None:
        beats = self.lease / BEATS_PER_LEASE
        place.digest_due = now + max(beats, len(self.places) / DIGESTS_PER_SECOND)
        self.places.move_to_end(place.name)

    def routine(self, now: float) -> Iterator[tuple[str | None, Message]]:
        """What is told again and again."""
        yield from self._beats(now)
        for origin, legacy in self.wills.items():
            if legacy.due:
                legacy.due = False
                yield from self._tell_will(origin, legacy.topics, legacy.until - now)
        budget = int(DIGESTS_PER_SECOND * self.tick_interval) + 1
        for place in [*self.places.values()][:budget]:
            if place.digest_due > now:
                break
            self._put_off_digest(place, now)
            if place.version:
                yield place.name, Digest(place.version)
        self._news.update(self._lists_due)
        self._lists_due.clear()

    def _beats(self, now: float) -> Iterator[tuple[None, Message]]:
        if now >= self._next_beat and (self.seats or any(p.told for p in self.places.values())):
            self._next_beat = now + self.lease / BEATS_PER_LEASE
            yield None, Beat(self._longest_silence)

    def will(self) -> Iterator[tuple[str | None, Message]]:
        """What is left to the others: all who are here now, or linger."""
        topics = {
            place.name: {
                member_id: holders[self.origin]
                for member_id, holders in place.holders.items()
                if self.origin in holders
            }
            for place in self.places.values()
        }
        if any(place.seats or place.version for place in self.places.values()):
            yield from self._tell_will(self.origin, topics, self.lease)

    def _tell_will(
        self, of: str, topics: Mapping[str, Members], lease: float
    ) -> Iterator[tuple[None, Message]]:
        rows = (
            ((topic, member_id), entry)
            for topic, members in topics.items()
            for member_id, entry in members.items()
        )
        parts = [*portions(rows)]
        for number, portion in enumerate(parts, 1):
            part: dict[str, dict[str, Entry]] = {}
            for (topic, member_id), entry in portion.items():
                part.setdefault(topic, {})[member_id] = entry
            yield None, Will(of, lease, part, last=number == len(parts))

    def forget(self, now: float, watched: Callable[[str], bool]) -> list[str]:
        """Let go of the topics that nobody here wants any more, and return them."""
        idle = [
            place for place in self.places.values() if place.is_empty and not watched(place.name)
        ]
        idle.sort(key=lambda place: place.looked_at)
        latest = now - LOOKED_AT
        surplus = len(idle) - MAX_LOOKED_AT
        gone = [
            place.name
            for number, place in enumerate(idle)
            if number < surplus or place.looked_at <= latest
        ]
        for name in gone:
            del self.places[name]
        return gone


def _by_stamp(holder: tuple[str, Entry]) -> tuple[int, str]:
    origin, entry = holder
    return entry.stamp, origin
