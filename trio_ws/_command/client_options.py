"""The options of a client, as arguments: those of every command that connects to a URL."""

from __future__ import annotations

import argparse
import ssl
from typing import Any, cast

from .._errors import InvalidURL
from .._http.url import parse_url
from .._keywords import ClientKeywords
from .._options import ClientOptions
from .._reasons import reason_of
from .arguments import check_options, header_field, path_name
from .exits import USAGE, CommandFailed


def add_client_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws://… or wss://…")
    group = parser.add_argument_group("how to connect")
    group.add_argument(
        "--header",
        action="append",
        default=[],
        type=header_field,
        metavar="'NAME: VALUE'",
        help="an additional header, several if repeated",
    )
    group.add_argument("--origin", help="the Origin header")
    group.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer, several if repeated",
    )
    group.add_argument(
        "--compression",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="offer permessage-deflate, or not",
    )
    group.add_argument("--unix", type=path_name, metavar="PATH", help="connect to a Unix socket")
    trust = group.add_mutually_exclusive_group()
    trust.add_argument(
        "--cafile", type=path_name, metavar="FILE", help="trust these authorities, not the system's"
    )
    trust.add_argument(
        "--insecure", action="store_true", help="do not check the server's certificate"
    )


def client_options(parsed: argparse.Namespace) -> ClientKeywords:
    """What was typed, as keyword arguments of `open_websocket_url`.

    An option that is wrong, or that does not suit the URL, ends the command with one line.

    Raises:
        CommandFailed: the URL is none, or the file of authorities cannot be used.
    """
    options: dict[str, Any] = {
        "headers": parsed.header,
        "origin": parsed.origin,
        "subprotocols": parsed.subprotocol,
        "path": parsed.unix,
        "ssl_context": _context(parsed.cafile, insecure=parsed.insecure),
    }
    if not parsed.compression:
        options["compression"] = None
    check_options(parsed, ClientOptions, options)
    try:
        is_secure = parse_url(parsed.url).secure
    except InvalidURL as exc:
        raise CommandFailed(str(exc), USAGE) from None
    if options["ssl_context"] is not None and not is_secure:
        parsed.parser.error("--cafile and --insecure are for wss:// URLs")
    return cast("ClientKeywords", options)


def _context(cafile: str | None, *, insecure: bool) -> ssl.SSLContext | None:
    if cafile is None and not insecure:
        return None
    try:
        context = ssl.create_default_context(cafile=cafile)
    except OSError as exc:
        raise CommandFailed(f"cannot use the authorities in {cafile}: {reason_of(exc)}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
