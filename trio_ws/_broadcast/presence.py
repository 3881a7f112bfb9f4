"""Who is there, as the application sees it: joining a topic, and following who is in it.

This module owns `Membership` and `Presence`, and where tasks wait for somebody to come or go. What
is known of other processes `roster` keeps and `heralds` exchanges.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType, TracebackType
from typing import Any, final

import trio

from .._connection.websocket import WebSocket
from .._errors import CloseCode, Initiator
from .._json import from_json, same_json, to_json
from .._log import LoggerLike
from ..backplane._base import Backplane
from .heralds import Herald, Watchers
from .presence_messages import LONGEST_LEASE, MAX_ID_BYTES, MAX_VALUE_BYTES
from .roster import NOBODY, Place, Roster, Seat

#: In a second, a busy process may not get to say that it is alive.
SHORTEST_LEASE = 1.0

#: The codes with which this side asks a client to come back.
_COME_BACK = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)


class Attendance:
    """Who is in the topics of one broadcast: what all objects of this module share.

    Args:
        backplane: leads to other processes.
        lease: for how many seconds what a process says is believed.
        check_open: raises what `Broadcast.subscribe` raises outside its block.
        logger: for messages that make no sense.
    """

    def __init__(
        self,
        backplane: Backplane | None,
        lease: float,
        check_open: Callable[[], None],
        logger: LoggerLike,
    ) -> None:
        self.watchers: Watchers = Watchers()
        self.roster: Roster = Roster(
            os.urandom(8).hex(),
            lease,
            _wall_clock,
            self.watchers.wake,
            alone=backplane is None,
        )
        self.herald: Herald | None = None
        if backplane is not None:
            self.herald = Herald(backplane, self.roster, self.watchers, logger)
        self._check_open: Callable[[], None] = check_open
        self.is_over: bool = False

    @property
    def malformed(self) -> int:
        return self.herald.malformed if self.herald is not None else 0

    async def run(self) -> None:
        """Speak with the other processes until cancelled."""
        assert self.herald is not None
        await self.herald.run()

    def receive(self, topic: str, message: str | bytes) -> None:
        """Another process has spoken."""
        assert self.herald is not None
        self.herald.receive(topic, message)

    async def say_goodbye(self) -> None:
        """Tell the other processes that this one ends in good order."""
        assert self.herald is not None
        await self.herald.say_goodbye()

    def look(self, topic: str) -> Place | None:
        """Who is in a topic, now; `None` for nobody. Has it kept up to date for a while."""
        if self.is_over:
            return None
        now = trio.current_time()
        self.roster.expire_ours(now)
        if self.herald is None:
            return self.roster.places.get(topic)
        place = self.herald.open(topic, now)
        place.looked_at = now
        return place

    def sit(self, topic: str, member_id: str, value: Any) -> Seat:
        self._check_open()
        now = trio.current_time()
        if self.herald is not None:
            self.herald.open(topic, now)
        seat = self.roster.sit(topic, member_id, value, now)
        self._tell()
        return seat

    def change_value(self, topic: str, seat: Seat, value: Any) -> None:
        self._check_open()
        self.roster.change_value(topic, seat, value)
        self._tell()

    def rise(self, topic: str, seat: Seat, *, lingers: bool) -> None:
        if not self.is_over:
            self.roster.rise(topic, seat, trio.current_time(), lingers=lingers)
            self._tell()

    def _tell(self) -> None:
        if self.herald is not None:
            self.herald.note_news()

    def end(self) -> None:
        """Nobody comes or goes any more. Waits for nothing."""
        self.is_over = True
        self.watchers.wake_all()


def _wall_clock() -> int:
    return int(time.time() * 1000)


@final
class Membership:
    """What `Broadcast.join` gives: a context manager, to be used once.

    Attributes:
        topic: where the member is.
        member_id: its id.
    """

    __slots__ = (
        "_attendance",
        "_seat",
        "_value",
        "_was_entered",
        "_websocket",
        "member_id",
        "topic",
    )

    def __init__(
        self,
        attendance: Attendance,
        topic: str,
        member_id: str,
        value: object,
        websocket: WebSocket | None,
    ) -> None:
        self.topic: str = topic
        self.member_id: str = _checked_id(member_id)
        self._value: Any = _checked_value(value)
        self._websocket: WebSocket | None = websocket
        self._attendance: Attendance = attendance
        self._seat: Seat | None = None
        self._was_entered: bool = False

    @property
    def value(self) -> Any:
        """The member's value, as JSON makes it."""
        return self._value

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Membership:
        if self._was_entered:
            raise RuntimeError("a membership is entered once: call join() again")
        self._seat = self._attendance.sit(self.topic, self.member_id, self._value)
        self._was_entered = True
        return self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seat, self._seat = self._seat, None
        assert seat is not None
        lingers = self._websocket is not None and _was_sent_away(self._websocket)
        self._attendance.rise(self.topic, seat, lingers=lingers)

    @trio.lowlevel.enable_ki_protection
    def update(self, value: object) -> None:
        """Give the member another value, in all processes.

        Raises:
            TypeError, ValueError: as `Broadcast.join`. Nothing has changed.
            trio.ClosedResourceError: the block was left, or not entered yet, or the broadcast is
                over.
        """
        value = _checked_value(value)
        if self._seat is None:
            raise trio.ClosedResourceError("this is not inside the block of join()")
        self._attendance.change_value(self.topic, self._seat, value)
        self._value = value

    def __repr__(self) -> str:
        state = "present" if self._seat is not None else "left" if self._was_entered else "new"
        return f"<Membership of {self.member_id!r} in {self.topic!r}, {state}>"


def _was_sent_away(websocket: WebSocket) -> bool:
    """Whether this side closed it, and its client was asked to come back."""
    reason = websocket.close_reason
    return (
        reason is not None
        and reason.initiator is Initiator.LOCAL
        and not reason.failed
        and reason.code in _COME_BACK
    )


def check_lease(seconds: float) -> None:
    given: object = seconds
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise TypeError(f"presence_lease is a number of seconds, not {given!r}")
    if not SHORTEST_LEASE <= seconds <= LONGEST_LEASE:
        raise ValueError(
            f"presence_lease is {SHORTEST_LEASE:g} to {LONGEST_LEASE:g} seconds, not {given!r}"
        )


def _checked_id(member_id: object) -> str:
    if not isinstance(member_id, str):
        raise TypeError(f"a member's id is a str, not {type(member_id).__name__}")
    size = len(member_id.encode())
    if size > MAX_ID_BYTES:
        raise ValueError(f"a member's id has at most {MAX_ID_BYTES} bytes, not {size}")
    return member_id


def _checked_value(value: object) -> Any:
    """A copy of the value, as other processes get it."""
    if value is None:
        return None
    text = to_json(value)
    if len(text) > MAX_VALUE_BYTES:
        raise ValueError(
            f"a member's value has at most {MAX_VALUE_BYTES} bytes as JSON, not {len(text)}: "
            "let it name what is larger"
        )
    return from_json(text)


@final
@dataclass(frozen=True, slots=True)
class PresenceSnapshot:
    """Who is in a topic, and what has changed since the snapshot before.

    All of them are read only. In the first snapshot, everybody has joined.

    Attributes:
        members: everybody's value, by id.
        joined: who was not there before, with the value.
        left: who is no longer there, with the last value.
        changed: who has another value, with the new one.
    """

    members: Mapping[str, Any]
    joined: Mapping[str, Any]
    left: Mapping[str, Any]
    changed: Mapping[str, Any]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.members)


@final
class Presence(AsyncIterator[PresenceSnapshot]):
    """Who is in a topic: what `Broadcast.presence` gives.

    It may be kept, and holds nothing that would have to be closed. Each `async for` that is to
    begin with everybody takes one of its own.
    """

    def __init__(self, attendance: Attendance, topic: str) -> None:
        self._attendance: Attendance = attendance
        self._given: Mapping[str, Any] | None = None
        self.topic: str = topic

    @property
    def count(self) -> int:
        """How many members there are, as far as this process knows at this moment."""
        place = self._attendance.look(self.topic)
        return len(place.members) if place is not None else 0

    @property
    def members(self) -> Mapping[str, Any]:
        """Their values by id, as far as this process knows at this moment. Stays as it is."""
        place = self._attendance.look(self.topic)
        return place.show() if place is not None else NOBODY

    async def __anext__(self) -> PresenceSnapshot:
        """Wait for a change. If it is cancelled, no change is lost."""
        attendance = self._attendance
        await trio.lowlevel.checkpoint()
        while not attendance.is_over:
            place = attendance.look(self.topic)
            changes = place.next_end if place is not None else inf
            if self._given is None and place is not None and trio.current_time() < place.settles:
                changes = place.settles
            else:
                is_first = self._given is None
                snapshot = _compare(self._given, place)
                self._given = snapshot.members
                if is_first or snapshot.joined or snapshot.left or snapshot.changed:
                    return snapshot
            with trio.move_on_at(changes):
                await attendance.watchers.wait(self.topic)
        raise StopAsyncIteration

    def __repr__(self) -> str:
        return f"<Presence in {self.topic!r}>"


def _compare(before: Mapping[str, Any] | None, place: Place | None) -> PresenceSnapshot:
    """What has changed since, which is the same for all who saw the same before."""
    if place is None:
        return _changes(before, NOBODY)
    known = place.compared.get(id(before))
    if known is None:
        # It keeps `before`, so that nothing else gets its id.
        known = place.compared[id(before)] = (before or NOBODY, _changes(before, place.show()))
    snapshot: PresenceSnapshot = known[1]
    return snapshot


def _changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> PresenceSnapshot:
    old = NOBODY if before is None else before
    return PresenceSnapshot(
        now,
        joined=MappingProxyType({key: value for key, value in now.items() if key not in old}),
        left=MappingProxyType({key: value for key, value in old.items() if key not in now}),
        changed=MappingProxyType(
            {
                key: value
                for key, value in now.items()
                if key in old and not same_json(old[key], value)
            }
        ),
    )
