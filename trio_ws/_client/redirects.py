"""Redirects: where a refusal says to go on, and what may be sent there.

This module owns which redirects are followed, and which secrets stay behind. The deadline over all
of them is here too, as only the whole counts. How one attempt is made is up to the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from .._connection.websocket import WebSocket
from .._errors import InvalidResponse, InvalidURL, TooManyRedirects
from .._http.headers import Headers
from .._http.url import WebSocketURL, follow_redirect
from .._http.values import ConnectionRejected, Response
from .._options import ClientOptions
from .._redaction import is_secret_field, masked, without_tokens
from .._transport.opening import opening_deadline

_REDIRECTS = {301, 302, 303, 307, 308}


async def follow_redirects(
    url: WebSocketURL,
    options: ClientOptions,
    connect: Callable[[WebSocketURL, ClientOptions], Awaitable[WebSocket]],
) -> WebSocket:
    """Call `connect`, and again for each redirect, all within `open_timeout`.

    Raises:
        TooManyRedirects: there was one more than `max_redirects`.
        InvalidResponse: a redirect leads to no WebSocket, or from ``wss`` to ``ws``.
        HandshakeError: `connect` raised it. A `ConnectionRejected` is raised if it is no redirect,
            or none that is to be followed.
    """
    followed = 0
    with opening_deadline(options.open_timeout):
        while True:
            try:
                return await connect(url, options)
            except ConnectionRejected as exc:
                further = _follow(exc, url, options, followed)
                if further is None:
                    raise
                url, options = further
                followed += 1


def _follow(
    refusal: ConnectionRejected, url: WebSocketURL, options: ClientOptions, followed: int
) -> tuple[WebSocketURL, ClientOptions] | None:
    """The URL and the options to try after a refusal, when so many redirects were `followed`.

    `None` if it is no redirect, or if redirects are not to be followed.
    """
    location = location_in(refusal.response) if options.max_redirects else None
    if location is None:
        return None
    if followed == options.max_redirects:
        cause = refusal.with_traceback(None)
        raise TooManyRedirects(f"there were more than {followed} redirects") from cause
    return _redirected(url, options, location)


def location_in(response: Response) -> str | None:
    """Where a redirect leads; `None` if `response` is no redirect.

    Raises:
        InvalidResponse: the redirect leads to more than one place.
    """
    locations = set(response.headers.get_all("Location") if response.status in _REDIRECTS else ())
    if len(locations) > 1:  # a comma may be part of a URL, so they cannot be joined into a list
        raise InvalidResponse("the server redirects to more than one place")
    return locations.pop() if locations else None


def _redirected(
    url: WebSocketURL, options: ClientOptions, location: str
) -> tuple[WebSocketURL, ClientOptions]:
    """The URL and the options to try next. Credentials stay with the origin that they are for."""
    try:
        target = follow_redirect(url, location)
    except InvalidURL as exc:
        raise InvalidResponse(
            f"the server redirects to {masked(location)!r}: {exc.problem}"
        ) from exc
    if url.secure and not target.secure:
        raise InvalidResponse(f"the redirect from {url} to {target} would give up TLS")
    if target.origin == url.origin:
        return replace(target, authorization=url.authorization), options
    # Another origin is another server, which the Unix socket, the certificate's name and the Host
    # of the first one are not for. Cookies know no ports, so the jar alone could not keep them
    # apart.
    kept = [
        (name, value)
        for name, value in options.extra_headers.fields
        if not is_secret_field(name) and name.lower() != "host"
    ]
    return target, replace(
        options,
        headers=Headers(kept),
        subprotocols=without_tokens(options.subprotocols),
        cookies=None,
        path=None,
        server_hostname=None,
    )
