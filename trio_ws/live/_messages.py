"""The messages of trio-ws.live.v1, to and from text, as ``docs/reference/live-protocol.md`` says.

This module owns what a client may send, and judges it: what is none of these messages is a
`BadMessage`, and ends the connection. It does no I/O, and knows no topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from .._json import from_json, to_json

#: The subprotocol, and with it the version of the protocol.
SUBPROTOCOL = "trio-ws.live.v1"

#: How many characters the name of a topic may have.
MAX_TOPIC = 256

#: How many characters the id of a `send` may have.
MAX_ID = 64

#: How many arrays and objects may be inside each other.
MAX_DEPTH = 100

#: How many a position may have. One that is longer is none that we have given.
MAX_POSITION = 256


class BadMessage(Exception):
    """A client does not keep to the protocol. The text says how, and is sent as a close reason."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """It wants a topic: what came after `position`, and who is there if `presence` is true."""

    topic: str
    position: str | None
    presence: bool


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """It wants a topic no more."""

    topic: str


@dataclass(frozen=True, slots=True)
class Send:
    """Something for the application, which is acknowledged if it has an id."""

    topic: str
    id: str | None
    data: Any


@dataclass(frozen=True, slots=True)
class Ping:
    """It wants to hear that we are there."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a type that this version does not have."""

    type: str
    id: str | None


Asked: TypeAlias = Subscribe | Unsubscribe | Send | Ping | Unknown


def parse(message: str | bytes) -> Asked:
    """What a client asks for.

    Raises:
        BadMessage: it is none of the protocol's messages.
    """
    if not isinstance(message, str):
        raise BadMessage("messages are text")
    try:
        value = from_json(message)
    except (ValueError, RecursionError):
        raise BadMessage("messages are JSON") from None
    if not isinstance(value, dict):
        raise BadMessage("a message is a JSON object")
    fields = cast("dict[str, Any]", value)
    if _is_deep(fields):
        raise BadMessage(f"a message has at most {MAX_DEPTH} levels")
    match fields.get("type"):
        case "subscribe":
            return Subscribe(_topic(fields), _position(fields), fields.get("presence") is True)
        case "unsubscribe":
            return Unsubscribe(_topic(fields))
        case "send":
            return Send(_topic(fields), _id(fields), fields.get("data"))
        case "ping":
            return Ping()
        case str(kind):
            return Unknown(kind[:MAX_ID], _id(fields))
        case _:
            raise BadMessage("a message has a type")


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        # What is in the arrays and objects of this level, which are all that matters of it.
        inner: list[Any] = []
        for outer in level:
            inner += outer.values() if isinstance(outer, dict) else outer
        level = [each for each in inner if isinstance(each, (dict, list))]
        if not level:
            return False
    return True


def _topic(fields: dict[str, Any]) -> str:
    topic = fields.get("topic")
    # What begins with NUL is for processes to speak with each other.
    if not isinstance(topic, str) or not 0 < len(topic) <= MAX_TOPIC or topic[0] == "\0":
        raise BadMessage(f"a topic is a string of 1 to {MAX_TOPIC} characters")
    if not _is_unicode(topic):
        raise BadMessage("a topic is Unicode")
    return topic


def _id(fields: dict[str, Any]) -> str | None:
    given = fields.get("id")
    if given is None:
        return None
    if not isinstance(given, str) or not 0 < len(given) <= MAX_ID or not _is_unicode(given):
        raise BadMessage(f"an id is a string of 1 to {MAX_ID} characters")
    return given


def _position(fields: dict[str, Any]) -> str | None:
    position = fields.get("position")
    if position is None:
        return None
    if not isinstance(position, str):
        raise BadMessage("a position is a string")
    return position if len(position) <= MAX_POSITION else None  # it would lead nowhere


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can express it. JSON can hold half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


# What a server says…


def subscribed(topic: str, *, recovered: bool) -> str:
    return _object("subscribed", topic, {"recovered": recovered})


def current(topic: str, position: str) -> str:
    return _object("current", topic, {"position": position} if position else {})


def published(kind: str, topic: str, position: str, data: str) -> str:
    """A message or a state. Its data is JSON already, which is neither read nor copied apart."""
    where = f',"position":{to_json(position)}' if position else ""
    return f'{{"type":"{kind}","topic":{to_json(topic)}{where},"data":{data}}}'


def gap(topic: str) -> str:
    return _object("gap", topic)


def presence(
    topic: str, joined: Mapping[str, Any], left: Iterable[str], *, is_all: bool = False
) -> str:
    changes = {"joined": dict(joined), "left": list(left)}
    return _object("presence", topic, {**changes, **({"all": True} if is_all else {})})


def ack(sent: str, data: object) -> str:
    return to_json({"type": "ack", "id": sent, **({} if data is None else {"data": data})})


def error(code: str, reason: str, *, topic: str | None = None, sent: str | None = None) -> str:
    fields = {"type": "error", "code": code, "reason": reason, "topic": topic, "id": sent}
    return to_json({name: value for name, value in fields.items() if value is not None})


PONG = '{"type":"pong"}'


def _object(kind: str, topic: str, fields: dict[str, object] | None = None) -> str:
    return to_json({"type": kind, "topic": topic, **(fields or {})})
