"""What processes tell each other about who is there: messages to text and back.

This module owns the format: text in, values out, no trio, no clock. What a message means, `roster`
knows.

Version 1 is a JSON object for each message. ``v`` is 1, ``from`` is the process that speaks (a
random word, one for each `Broadcast`), and ``kind`` says what else is in it. A *member* is
``[id, stamp, value]``. A *version* is a number that grows with each change of what a process tells
about a topic.

On the presence topic of a topic:

======  =========================  ===============================================================
kind    with                       meaning
======  =========================  ===============================================================
change  base, version, in, out     what was version `base` of my members here is `version` now: the
                                   members `in` came or changed, the ids `out` left. `base` is 0 if
                                   nobody was here before
list    version, part, parts, in   my members here; `part` of `parts`, from 0
digest  version                    nothing has changed since
ask     whom                       tell me your list: the processes in `whom`, or with null all
======  =========================  ===============================================================

On the topic that all processes share:

=====  ======================  ===================================================================
kind   with                    meaning
=====  ======================  ===================================================================
beat   lease                   I am there, with members; believe it for `lease` seconds
hello                          I am new: tell me the wills that you know
will   of, lease, topics,      the process `of` has ended in good order. Its clients were told to
       last                    come back: `topics` has members, by topic, that count for `lease`
                               seconds more, or until they are seen elsewhere. A will may take
                               several messages; `last` is true in the last one
=====  ======================  ===================================================================

Readers ignore fields that they do not know, and messages of another version or of a kind that they
do not know. A new kind is no new version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from .._json import from_json, to_json

VERSION = 1

#: How much of the members goes into one message: so much that 10,000 of them are 40 messages, and
#: so little that reading one holds up nobody.
MOST_MEMBERS = 256
MOST_BYTES = 64 * 1024

#: How large an id or a value may be, in bytes: they are "small values" of which a message holds
#: some at least.
MAX_ID_BYTES = 256
MAX_VALUE_BYTES = 4096

#: All numbers are integers that JavaScript, too, has exactly.
LARGEST = 2**53 - 1

#: A day. No process asks to be believed for longer.
LONGEST_LEASE = 86_400.0


class InvalidMessage(Exception):
    """The text is no message of this version."""


class Entry(NamedTuple):
    """A member, as one process tells it: since when (a stamp, in milliseconds), and its value."""

    stamp: int
    value: Any


Members: TypeAlias = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Change:
    base: int
    version: int
    came: Members
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    version: int
    part: int
    parts: int
    members: Members


@dataclass(frozen=True, slots=True)
class Digest:
    version: int


@dataclass(frozen=True, slots=True)
class Ask:
    whom: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Beat:
    lease: float


@dataclass(frozen=True, slots=True)
class Hello:
    pass


@dataclass(frozen=True, slots=True)
class Will:
    of: str
    lease: float
    topics: Mapping[str, Members]
    last: bool


Message: TypeAlias = Change | Listing | Digest | Ask | Beat | Hello | Will


# Writing…


def encode(origin: str, message: Message) -> str:
    kind, fields = _fields(message)
    return to_json({"v": VERSION, "from": origin, "kind": kind, **fields})


def _fields(message: Message) -> tuple[str, dict[str, Any]]:
    match message:
        case Change(base, version, came, gone):
            fields = {"base": base, "version": version, "in": _rows(came), "out": gone}
            return "change", fields
        case Listing(version, part, parts, members):
            return "list", {"version": version, "part": part, "parts": parts, "in": _rows(members)}
        case Digest(version):
            return "digest", {"version": version}
        case Ask(whom):
            return "ask", {"whom": None if whom is None else sorted(whom)}
        case Beat(lease):
            return "beat", {"lease": lease}
        case Hello():
            return "hello", {}
        case _:
            rows = {topic: _rows(members) for topic, members in message.topics.items()}
            fields = {"of": message.of, "lease": message.lease, "topics": rows}
            return "will", {**fields, "last": message.last}


def _rows(members: Members) -> list[list[Any]]:
    return [[member_id, *entry] for member_id, entry in members.items()]


K = TypeVar("K")


def portions(members: Iterable[tuple[K, Entry]]) -> Iterator[dict[K, Entry]]:
    """The members in portions that each fit into one message; at least one, perhaps empty.

    They are by id, or by topic and id.
    """
    portion: dict[K, Entry] = {}
    size = 0
    for key, entry in members:
        more = len(to_json([key, *entry]))
        if portion and (len(portion) >= MOST_MEMBERS or size + more > MOST_BYTES):
            yield portion
            portion, size = {}, 0
        portion[key] = entry
        size += more
    yield portion


# Reading…


def decode(text: str | bytes) -> tuple[str, Message | None]:
    """Who speaks, and what is said; `None` for a kind that this version does not know.

    Raises:
        InvalidMessage: whatever is wrong with `text`. Nothing else is raised.
    """
    try:
        found = _object(from_json(text if isinstance(text, str) else text.decode()))
        if found.get("v") != VERSION:
            raise InvalidMessage(f"no message of version {VERSION}")
        return _word(found["from"]), _message(found)
    except InvalidMessage:
        raise
    except (ValueError, RecursionError, KeyError, TypeError) as exc:
        raise InvalidMessage(f"{type(exc).__name__}: {exc}") from None


def _message(found: dict[str, Any]) -> Message | None:
    match found["kind"]:
        case "change":
            gone = tuple(_id(each) for each in _list(found["out"]))
            return Change(
                _number(found["base"]), _number(found["version"]), _members(found["in"]), gone
            )
        case "list":
            part, parts = _number(found["part"]), _number(found["parts"])
            if part >= parts:
                raise InvalidMessage(f"part {part} of {parts}")
            return Listing(_number(found["version"]), part, parts, _members(found["in"]))
        case "digest":
            return Digest(_number(found["version"]))
        case "ask":
            whom = found["whom"]
            return Ask(None if whom is None else frozenset(map(_word, _list(whom))))
        case "beat":
            return Beat(_lease(found["lease"]))
        case "hello":
            return Hello()
        case "will":
            topics = _object(found["topics"])
            members = {topic: _members(rows) for topic, rows in topics.items()}
            return Will(_word(found["of"]), _lease(found["lease"]), members, found["last"] is True)
        case _:
            return None


def _members(rows: object) -> dict[str, Entry]:
    members: dict[str, Entry] = {}
    for row in _list(rows):
        member_id, stamp, value = _list(row)
        members[_id(member_id)] = Entry(_number(stamp), value)
    return members


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidMessage(f"{value!r:.40} is no object")
    return cast("dict[str, Any]", value)


def _list(value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise InvalidMessage(f"{value!r:.40} is no array")
    return cast("Sequence[Any]", value)


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise InvalidMessage(f"{value!r:.40} is no number from 0 to 2**53-1")
    return value


def _lease(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidMessage(f"{value!r:.40} is no number of seconds")
    if not 0 <= value <= LONGEST_LEASE:
        raise InvalidMessage(f"{value!r:.40} seconds are no lease")
    return float(value)


def _id(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(f"{value!r:.40} is no id")
    value.encode()  # a ValueError for half a surrogate, which applications could not send on
    return value


def _word(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise InvalidMessage(f"{value!r:.40} names no process")
    return value
