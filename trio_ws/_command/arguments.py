"""What the subcommands have in common: the form of one, and the kinds of arguments that they take.

A function that makes a value of what was typed raises `argparse.ArgumentTypeError`, and nothing
else. argparse then shows its text in one line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from .._arguments import check_host
from .._redaction import without_secrets


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One of the commands that ``trio-ws`` has.

    Attributes:
        name, summary, description, epilog: what the help says of it.
        add_arguments: adds its arguments to its parser.
        run: does the work, and returns the exit code. It is called with what argparse made of the
            arguments, which has the command's parser as `parser`, and with the arguments
            themselves.
    """

    name: str
    summary: str
    description: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Sequence[str]], int]


def check_options(parsed: argparse.Namespace, kind: type, options: dict[str, Any]) -> None:
    """End the command with one line, as for any wrong argument, unless `kind` takes `options`."""
    try:
        kind(**options)
    except ValueError as exc:
        parsed.parser.error(str(exc))


def port_number(text: str) -> int:
    return whole_number(text, 0, 65535)


def host_name(text: str) -> str:
    try:
        check_host(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def path_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def url_path(text: str) -> str:
    if not text.startswith("/") or "?" in text or "#" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the path of a URL, like /ready")
    return text


def process_count(text: str) -> int:
    return whole_number(text, 1, 1000)


def whole_number(text: str, least: int, most: int) -> int:
    # A float first: Python makes no int from more than 4300 digits.
    value = float(text) if text.isdecimal() else inf
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(value)


def seconds(text: str) -> float:
    value = number(text)
    if not value >= 0:  # written so that NaN fails it
        raise argparse.ArgumentTypeError(f"{text!r} is not a time")
    return value


def finite_seconds(text: str) -> float:
    value = seconds(text)
    if value == inf:
        raise argparse.ArgumentTypeError("this takes a number of seconds that is not inf")
    return value


def timeout(text: str) -> float:
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds are too short for anything")
    return value


def number(text: str) -> float:
    """An int if it is a whole number, so that error texts show it as it was typed."""
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def metrics_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``, or only a port, which is then one of this computer alone."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if colon and (not bare or (":" in bare and bare == host)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST:PORT, like 127.0.0.1:9464 or [::1]:9464"
        )
    return host_name(bare or "127.0.0.1"), port_number(port)


def header_field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{without_secrets(text)!r} has no colon")
    return name.strip(), value.strip()
