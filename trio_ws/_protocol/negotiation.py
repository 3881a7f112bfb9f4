"""How two sides agree on permessage-deflate: Sec-WebSocket-Extensions (RFC 7692 section 7.1).

This module owns what the two handshakes say about compression: a client offers, a server answers
with no more than was offered, and the client checks the answer. It compresses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

from .._http.headers import is_token
from .deflate import DEFAULT_BITS, MAX_BITS, MIN_BITS, NAME, Agreement, Deflate


class _Unacceptable(Exception):
    """The parameters are malformed or unknown, or ask for something that is not on offer here."""


def client_offer(settings: Deflate) -> str:
    """What a client says in Sec-WebSocket-Extensions.

    By default, this is what browsers say. Where a client asks for more, some servers refuse the
    connection and others ignore it.
    """
    parts = [NAME]
    if not settings.server_context_takeover:
        parts.append("server_no_context_takeover")
    if not settings.client_context_takeover:
        parts.append("client_no_context_takeover")
    if (bits := settings.server_window_bits or MAX_BITS) < MAX_BITS:
        parts.append(f"server_max_window_bits={bits}")
    # Always offered, so that a server may ask for a smaller window (section 7.1.2.2).
    bits = settings.client_window_bits or MAX_BITS
    parts.append("client_max_window_bits" + (f"={bits}" if bits < MAX_BITS else ""))
    return "; ".join(parts)


@lru_cache(maxsize=64)
def server_choice(header: str, settings: Deflate) -> Agreement | None:
    """The first of the client's offers that can be accepted, in our terms; `None` if there is none.

    An offer with an unknown, repeated, misspelt or out-of-range parameter is declined, and the next
    one considered (section 5.1). It is never an error, because the connection works without
    compression. Choices are remembered: there are only as many different offers as there are kinds
    of clients.
    """
    for parameters in _offers(header):
        try:
            return _accept(parameters, settings)
        except _Unacceptable:
            continue
    return None


def client_check(header: str) -> Agreement:
    """What the server's response agrees to.

    It may say more than was asked, or less. A larger window than asked for, or a context that is
    kept, costs memory here, but no more than a connection with default settings takes.

    Raises:
        ValueError: `header` is not an answer to our offer; the handshake must fail (section 5.1).
    """
    answers = list(_extensions(header, may_be_quoted=True))
    if len(answers) != 1 or answers[0] is None or answers[0][0] != NAME:
        raise ValueError(f"the server uses extensions that were not offered: {header}")
    try:
        return _agreement(answers[0][1], in_response=True)
    except _Unacceptable as exc:
        raise ValueError(f"the server's permessage-deflate cannot be understood: {exc}") from exc


_Parameters: TypeAlias = list[tuple[str, str | None]]

# Commas and semicolons within quotes are part of the value.
_PIECES = re.compile(r'"(?:\\.|[^"\\])*"?|[^",;]+|[,;]')


def _extensions(
    header: str, *, may_be_quoted: bool = False
) -> Iterator[tuple[str, _Parameters] | None]:
    """The members of Sec-WebSocket-Extensions (RFC 6455 section 9.1); `None` for a malformed one.

    In an offer, a quoted value counts as malformed. No parameter of this extension needs one, and
    the next offer, or none, is as good.
    """
    member: list[str] = [""]
    members = [member]
    for piece in _PIECES.findall(header):
        if piece == ",":
            member = [""]
            members.append(member)
        elif piece == ";":
            member.append("")
        else:
            member[-1] += piece
    for name, *parameters in members:
        if name.strip(" \t") or parameters:  # empty members do not count (RFC 9110 section 5.6.1)
            yield _parsed(name, parameters, may_be_quoted=may_be_quoted)


def _parsed(
    name: str, parameters: list[str], *, may_be_quoted: bool
) -> tuple[str, _Parameters] | None:
    result: _Parameters = []
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        key, value = key.strip(" \t"), value.strip(" \t")
        if may_be_quoted and (quoted := _QUOTED.fullmatch(value)):
            value = _ESCAPED.sub(r"\1", quoted[1])
        if not is_token(key) or (equals and not is_token(value)):
            return None
        result.append((key, value if equals else None))
    name = name.strip(" \t")
    return (name, result) if is_token(name) else None


_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"')
_ESCAPED = re.compile(r"\\(.)")


def _offers(header: str) -> Iterator[_Parameters]:
    for extension in _extensions(header):
        if extension is not None and extension[0] == NAME:
            yield extension[1]


def _agreement(parameters: _Parameters, *, in_response: bool) -> Agreement:
    """What the parameters say (section 7.1). Each may stand once, and has to be in its range."""
    values = dict(parameters)
    if len(values) < len(parameters):
        raise _Unacceptable("a parameter is given twice")
    agreement = Agreement(
        server_window_bits=_bits(values, "server_max_window_bits", may_be_bare=False),
        # Only an offer may leave the number out; that means "a number of your choice" (7.1.2.2).
        client_window_bits=_bits(values, "client_max_window_bits", may_be_bare=not in_response),
        server_context_takeover=_takeover(values, "server_no_context_takeover"),
        client_context_takeover=_takeover(values, "client_no_context_takeover"),
    )
    if values:
        raise _Unacceptable(f"unknown parameters: {', '.join(values)}")
    return agreement


def _bits(values: dict[str, str | None], name: str, *, may_be_bare: bool) -> int | None:
    if name not in values:
        return None
    value = values.pop(name)
    if value is None and may_be_bare:
        return MAX_BITS
    if value not in _BITS:
        raise _Unacceptable(f"{name} is {value!r}")
    return int(value)


#: Windows as they are written: without a leading zero (section 7.1.2.1).
_BITS = {str(bits) for bits in range(MIN_BITS, MAX_BITS + 1)}


def _takeover(values: dict[str, str | None], name: str) -> bool:
    if name not in values:
        return True
    if values.pop(name) is not None:
        raise _Unacceptable(f"{name} has a value")
    return False


def _accept(parameters: _Parameters, settings: Deflate) -> Agreement:
    """The server's answer to one offer: never more than was offered, and what we want of it."""
    offered = _agreement(parameters, in_response=False)
    # A window is named only where the client named it. The client's window must not be named
    # otherwise: a client that does not say that it can limit its window must not be asked to
    # (section 7.1.2.2). Ours might be, but some clients fail over what they have not asked for.
    server_bits, client_bits = offered.server_window_bits, offered.client_window_bits
    if server_bits is not None:
        server_bits = min(server_bits, settings.server_window_bits or DEFAULT_BITS)
    if client_bits is not None:
        client_bits = min(client_bits, settings.client_window_bits or MAX_BITS)
    return Agreement(
        server_window_bits=server_bits,
        # The largest is what holds where none is named.
        client_window_bits=None if client_bits == MAX_BITS else client_bits,
        server_context_takeover=(
            offered.server_context_takeover and settings.server_context_takeover
        ),
        client_context_takeover=(
            offered.client_context_takeover and settings.client_context_takeover
        ),
    )
