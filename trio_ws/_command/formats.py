"""What is written to the standard output: text for people, or records for programs."""

from __future__ import annotations

import base64
import json
import time
from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any, Literal

from .._connection.websocket import WebSocket
from .._errors import CloseReason, Initiator
from .._redaction import masked
from .visible import CYAN, RESET, dump, pretty_json, visible


class Format(ABC):
    """How what happens on a connection is shown. Each text ends with a newline, or is empty."""

    @abstractmethod
    def opened(self, url: str, websocket: WebSocket) -> str: ...

    @abstractmethod
    def received(self, message: str | bytes) -> str: ...

    @abstractmethod
    def sent(self, message: str | bytes, at: float) -> str: ...

    @abstractmethod
    def pong(self, seconds: float) -> str: ...

    @abstractmethod
    def closed(self, reason: CloseReason) -> str: ...


class Text(Format):
    """Messages from the peer, each line marked with ``<``. The rest is told in notes.

    Attributes:
        json: whether JSON is laid out.
        times: whether the time is shown.
        colour: whether colours are used.
    """

    def __init__(self, *, json: bool, times: bool, colour: bool) -> None:
        self.json = json
        self.times = times
        self.colour = colour

    def received(self, message: str | bytes, who: str = "") -> str:
        """A message, with what begins its lines, for example from whom it is."""
        mark = f"{CYAN}<{RESET} " if self.colour else "< "
        begin = self.time() + who + mark
        return begin + self._shown(message).replace("\n", "\n" + begin) + "\n"

    def _shown(self, message: str | bytes) -> str:
        if not isinstance(message, str):
            return dump(message)
        laid_out = pretty_json(message, colour=self.colour) if self.json else None
        return visible(message) if laid_out is None else laid_out

    def time(self) -> str:
        """The time of day, if times are shown."""
        if not self.times:
            return ""
        now = datetime.now().astimezone()  # that of the user
        return f"{now:%H:%M:%S.%f}"[:-3] + " "

    def toggle(self, what: Literal["json", "times"]) -> bool:
        """Turn one of them on or off. Returns whether it is on now."""
        is_on = not getattr(self, what)
        setattr(self, what, is_on)
        return is_on

    def opened(self, url: str, websocket: WebSocket) -> str:
        return ""

    def sent(self, message: str | bytes, at: float) -> str:
        return ""

    def pong(self, seconds: float) -> str:
        return ""

    def closed(self, reason: CloseReason) -> str:
        return ""


class Records(Format):
    """A line of JSON for each event: ``--jsonl``. docs/reference/command-line.md has the fields.

    The time of a message that was sent is when sending began. An answer may be written before it,
    but has a later time.

    JSON escapes whatever is not ASCII, so there is nothing in it that a terminal would obey.
    """

    def opened(self, url: str, websocket: WebSocket) -> str:
        subprotocol = websocket.subprotocol
        return self._record("out", "open", url=masked(url), subprotocol=subprotocol)

    def received(self, message: str | bytes) -> str:
        return self._message("in", message, time.time())

    def sent(self, message: str | bytes, at: float) -> str:
        return self._message("out", message, at)

    def pong(self, seconds: float) -> str:
        return self._record("in", "pong", seconds=round(seconds, 6))

    def closed(self, reason: CloseReason) -> str:
        direction = "out" if reason.initiator is Initiator.LOCAL else "in"
        return self._record(direction, "close", code=reason.code, reason=reason.reason)

    def _message(self, direction: str, message: str | bytes, at: float) -> str:
        if isinstance(message, str):
            return self._record(direction, "text", at, data=message)
        data = base64.b64encode(message).decode("ascii")
        return self._record(direction, "binary", at, data=data)

    def _record(self, direction: str, kind: str, at: float | None = None, **fields: Any) -> str:
        at = time.time() if at is None else at
        record = {"time": round(at, 6), "direction": direction, "kind": kind, **fields}
        return json.dumps(record) + "\n"
