"""What a typed line means: a text message, or one of the commands that begin with a slash."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .._errors import CloseCode, check_close_arguments

HELP: Final = """\
/ping [TEXT]           send a ping, and show how long the pong takes
/binary HEX            send a binary message, as in /binary 00 ff
/binary base64:TEXT    the same, in base64
/close [CODE [REASON]] close with this code (default: 1000)
/json                  lay JSON out in lines, or no more
/times                 show the time of each message, or no more
/quit                  close with 1000, like Ctrl-D
//TEXT                 send a text that begins with one slash"""


@dataclass(frozen=True)
class Send:
    message: str | bytes


@dataclass(frozen=True)
class SendPing:
    payload: bytes | None


@dataclass(frozen=True)
class Leave:
    """Close the connection, and end."""

    code: int = CloseCode.NORMAL_CLOSURE
    reason: str = ""


@dataclass(frozen=True)
class Toggle:
    """Change how messages are shown."""

    what: Literal["json", "times"]


@dataclass(frozen=True)
class Tell:
    """Send nothing. The user is told this."""

    text: str


Action: TypeAlias = Send | SendPing | Leave | Toggle | Tell


def understand(line: str) -> Action:
    """What is to be done for a line in which commands are allowed."""
    if not line.startswith("/"):
        return Send(line)
    if line.startswith("//"):
        return Send(line[1:])
    command, _, rest = line[1:].partition(" ")
    try:
        match command:
            case "ping":
                return SendPing(_ping_payload(rest))
            case "binary":
                return Send(_binary(rest))
            case "close":
                return _close(rest)
            case "quit":
                return Leave()
            case "json" | "times" as what:
                return Toggle(what)
            case "help":
                return Tell(HELP)
            case _:
                return Tell(f"no command /{command}: /help lists them, and /{line} sends the text")
    except ValueError as exc:
        return Tell(str(exc))


def _ping_payload(text: str) -> bytes | None:
    payload = text.encode()
    if len(payload) > 125:
        raise ValueError(f"a ping holds 125 bytes, and this text takes {len(payload)}")
    return payload or None


def _binary(text: str) -> bytes:
    kind, colon, encoded = text.partition(":")
    try:
        if colon and kind.strip() == "base64":
            return base64.b64decode("".join(encoded.split()), validate=True)
        return bytes.fromhex(text)
    except (binascii.Error, ValueError):
        raise ValueError(
            "write the bytes in hexadecimal, as in /binary 00 ff, or as /binary base64:AP8="
        ) from None


def _close(text: str) -> Leave:
    code, _, reason = text.strip().partition(" ")
    if not code:
        return Leave()
    if not (code.isdecimal() and len(code) <= 5):
        raise ValueError("write /close CODE REASON, as in /close 4000 enough")
    check_close_arguments(int(code), reason)
    return Leave(int(code), reason)
