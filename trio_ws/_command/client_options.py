"""The options of a client, as arguments: those of every command that connects to a URL."""

from __future__ import annotations

import argparse
import base64
import ssl
from pathlib import Path
from typing import Any, cast

from .._client.proxies import choose_proxy, import_socks
from .._errors import InvalidURL
from .._http.url import WebSocketURL, parse_url
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
    way.add_argument(
        "--proxy",
        type=proxy_url,
        default="env",
        metavar="URL",
        help="go through this proxy, as in http://proxy.example:3128; or @FILE; none for no proxy "
        "(default: env, the one that the environment names, if any)",
    )
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


def proxy_url(text: str) -> str | None:
    return None if text == "none" else _content(text)


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
        CommandFailed: the URL is none, a file for TLS cannot be used, or the proxy cannot.
    """
    options: dict[str, Any] = {
        "headers": _headers(parsed),
        "origin": parsed.origin,
        "subprotocols": parsed.subprotocol,
        "path": parsed.unix,
        "proxy": parsed.proxy,
        "ssl_context": _context(parsed),
    }
    if not parsed.compression:
        options["compression"] = None
    check_options(parsed, ClientOptions, options)
    try:
        url = parse_url(parsed.url)
    except InvalidURL as exc:
        raise CommandFailed(str(exc), USAGE) from None
    if options["ssl_context"] is not None and not url.secure:
        parsed.parser.error("--cafile, --insecure and --cert are for wss:// URLs")
    _check_proxy(url, ClientOptions(**options))
    return cast("ClientKeywords", options)


def _check_proxy(url: WebSocketURL, options: ClientOptions) -> None:
    try:
        proxy = choose_proxy(url, options)
    except ValueError as exc:  # what the environment has
        raise CommandFailed(str(exc), USAGE) from None
    if proxy is None or not proxy.speaks_socks:
        return
    try:
        import_socks(proxy)
    except ImportError:
        raise CommandFailed(
            f'the proxy of {proxy} needs python-socks: pip install "trio-ws[proxy]", or give '
            "--proxy none"
        ) from None


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
