"""Basic authentication (RFC 7617): a hook that admits clients which know a password.

This module owns how a name and a password are read and compared. The server and the router call
the hook.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import inspect
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, cast, final

from .._arguments import check_callable
from .._http.headers import is_field_value
from .._http.values import Request, Response

#: Says whether a user name and a password belong together.
CheckCredentials: TypeAlias = Callable[[str, str], bool | Awaitable[bool]]


@final
class Username(str):
    """The name of a user that `basic_auth` let in: ``ws.context[Username]``."""

    __slots__ = ()


def basic_auth(
    users: Mapping[str, str] | CheckCredentials, *, realm: str = "WebSocket"
) -> Callable[[Request], Awaitable[Response | None]]:
    """A hook that asks for a user name and a password::

        router = Router(before=basic_auth({"ada": "lovelace"}))  # every route
        @router.websocket("/chat", before=basic_auth(check))     # or one
        serve_websocket(handler, …, process_request=basic_auth(check))  # or no router

    The name is in ``request.context[Username]``, which the handler has as
    ``ws.context[Username]``. Everybody else gets 401. Use it with TLS: over ``ws``, anybody on the
    way can read the password.

    Args:
        users: passwords by user name. Both are compared in constant time. Or a function of a name
            and a password, sync or async, that returns whether they are right. A function that
            looks into a database should compare hashes with `hmac.compare_digest`.
        realm: what the password is for. Browsers may show it.

    Raises:
        TypeError: `users` is something else, or `realm` no `str`.
        ValueError: a user name holds a colon, or `realm` what a header cannot.
    """
    if not isinstance(realm, str):
        raise TypeError(f"a realm is a str, not {realm!r}")
    if not is_field_value(realm) or not realm.isascii():
        raise ValueError(f"a realm is printable ASCII, not {realm!r}")
    if callable(users):
        check_callable("the check of basic_auth", users, "a user name", "a password")
    check = users if callable(users) else _table(users)
    quoted = realm.replace("\\", r"\\").replace('"', r"\"")
    challenge = {"WWW-Authenticate": f'Basic realm="{quoted}", charset="UTF-8"'}

    async def ask_for_password(request: Request) -> Response | None:
        credentials = _credentials(request)
        if credentials is not None:
            verdict = check(*credentials)
            if inspect.isawaitable(verdict):
                verdict = await verdict
            if verdict is True:
                request.context[Username] = Username(credentials[0])
                return None
            if verdict is not False:
                raise TypeError(f"the check of basic_auth returns True or False, not {verdict!r}")
        return Response(401, challenge, "A user name and a password are needed.\n")

    return ask_for_password


def _table(users: object) -> CheckCredentials:
    if not isinstance(users, Mapping):
        raise TypeError(f"users are a dict of passwords or a function, not {type(users).__name__}")
    table: dict[bytes, bytes] = {}
    for name, password in cast("Mapping[object, object]", users).items():
        if not isinstance(name, str) or not isinstance(password, str):
            raise TypeError("a user name and a password are str")
        if ":" in name:
            raise ValueError(f"a user name with a ':' cannot be sent: {name!r}")
        table[_digest(name)] = _digest(password)
    nobody = secrets.token_bytes(32)

    def check(name: str, password: str) -> bool:
        # The time that a look-up takes says something about the names in the table. These are
        # digests, so it says nothing. A name that is not there costs the same comparison, or the
        # time of the answer would tell which names exist.
        return hmac.compare_digest(_digest(password), table.get(_digest(name), nobody))

    return check


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _credentials(request: Request) -> tuple[str, str] | None:
    """The name and the password in a request, if it has them."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(token.strip(" "), validate=True).decode()
    except ValueError:  # neither base64 nor UTF-8
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None
