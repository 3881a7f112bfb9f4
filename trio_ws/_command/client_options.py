"""The options of a client, as arguments: those of every command that connects to a URL."""

from __future__ import annotations

import argparse
import base64
import ssl
from pathlib import Path
from typing import Any, cast

from .._errors import InvalidURL
from .._http.url import parse_url
from .._keywords import ClientKeywords
from .._options import ClientOptions
from .arguments import check_options, header_field, path_name
from .certificates import load_certificate, trust
from .exits import USAGE, CommandFailed


def add_client_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="ws://… or wss://…")

    request = parser.add_argument_group(
        "the request",
        "Other users of the machine can see arguments. In place of a secret, @FILE takes it from a "
        "file.",
    )
    request.add_argument(
        "--header",
        action="append",
        default=[],
        type=header_fields,
        metavar="'NAME: VALUE'",
        help="an additional header, several if repeated; @FILE has one in each line",
    )
    auth = request.add_mutually_exclusive_group()
    auth.add_argument(
        "--auth",
        dest="authorization",
        type=basic_authorization,
        metavar="USER:PASSWORD",
        help="Basic authorization; or @FILE",
    )
    auth.add_argument(
        "--bearer",
        dest="authorization",
        type=bearer_authorization,
        metavar="TOKEN",
        help="Bearer authorization; or @FILE",
    )
    request.add_argument("--origin", help="the Origin header")
    request.add_argument(
        "--subprotocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a subprotocol to offer, several if repeated",
    )
    request.add_argument(
        "--compression",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="offer permessage-deflate (the default), or do not",
    )

    way = parser.add_argument_group("the way to the server")
    way.add_argument("--unix", type=path_name, metavar="PATH", help="connect to a Unix socket")
    authorities = way.add_mutually_exclusive_group()
    authorities.add_argument(
        "--cafile", type=path_name, metavar="FILE", help="trust these authorities, not the system's"
    )
    authorities.add_argument(
        "--insecure", action="store_true", help="do not check the server's certificate"
    )
    way.add_argument(
        "--cert", type=path_name, metavar="FILE", help="show the server this certificate chain"
    )
    way.add_argument(
        "--key", type=path_name, metavar="FILE", help="its private key, if that is in another file"
    )


# ---------------------------------------------------------------------------
# Kinds of arguments
# ---------------------------------------------------------------------------


def header_fields(text: str) -> list[tuple[str, str]]:
    if not text.startswith("@"):
        return [header_field(text)]
    return [header_field(line) for line in _content(text).splitlines() if line.strip()]


def basic_authorization(text: str) -> str:
    credentials = _content(text)
    if ":" not in credentials:
        raise argparse.ArgumentTypeError("there is no colon between a user and a password")
    encoded = base64.b64encode(credentials.encode("utf-8", "surrogateescape"))
    return f"Basic {encoded.decode('ascii')}"


def bearer_authorization(text: str) -> str:
    return f"Bearer {_content(text)}"


def _content(text: str) -> str:
    """`text`, or what is in the file that it names behind an ``@``."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text("utf-8").rstrip("\r\n")
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]!r}: {exc.strerror}") from None
    except ValueError:  # a NUL in the name, or bytes in the file that are not UTF-8
        raise argparse.ArgumentTypeError(f"{text[1:]!r} is no file of text in UTF-8") from None


# ---------------------------------------------------------------------------
# From arguments to options
# ---------------------------------------------------------------------------


def client_options(parsed: argparse.Namespace) -> ClientKeywords:
    """What was typed, as keyword arguments of `open_websocket_url`.

    An option that is wrong, or that does not suit the URL, ends the command with one line.

    Raises:
        CommandFailed: the URL is none, or a file for TLS cannot be used.
    """
    options: dict[str, Any] = {
        "headers": _headers(parsed),
        "origin": parsed.origin,
        "subprotocols": parsed.subprotocol,
        "path": parsed.unix,
        "ssl_context": _context(parsed),
    }
    if not parsed.compression:
        options["compression"] = None
    check_options(parsed, ClientOptions, options)
    try:
        is_secure = parse_url(parsed.url).secure
    except InvalidURL as exc:
        raise CommandFailed(str(exc), USAGE) from None
    if options["ssl_context"] is not None and not is_secure:
        parsed.parser.error("--cafile, --insecure and --cert are for wss:// URLs")
    return cast("ClientKeywords", options)


def _headers(parsed: argparse.Namespace) -> list[tuple[str, str]]:
    headers = [field for fields in parsed.header for field in fields]
    if parsed.authorization is not None:
        if any(name.lower() == "authorization" for name, _ in headers):
            parsed.parser.error("there is more than one Authorization header")
        headers.append(("Authorization", parsed.authorization))
    return headers


def _context(parsed: argparse.Namespace) -> ssl.SSLContext | None:
    if parsed.key and not parsed.cert:
        parsed.parser.error("--key needs --cert")
    if not (parsed.cafile or parsed.insecure or parsed.cert):
        return None
    context = trust(parsed.cafile, insecure=parsed.insecure)
    if parsed.cert:
        load_certificate(context, parsed.cert, parsed.key)
    return context
