"""Plain HTTP on a server that has no site: it is refused, unless `process_request` answers it.

This module owns what such a server says to somebody who asks for a page.
"""

from __future__ import annotations

from typing import NoReturn

from .._http.reading import IncomingRequest, check_is_only_a_head
from .._http.values import refusal, upgrade_required
from .hooks import Ask


async def decline(incoming: IncomingRequest, ask: Ask | None) -> NoReturn:
    """Say what to answer to a request that is not for a WebSocket.

    Raises:
        ConnectionRejected: a hook gave a response: a page, a health check.
        InvalidRequest: there is none, and why: 426, or 405 and others.
    """
    check_is_only_a_head(incoming)
    if ask is not None:
        await ask(incoming.request)
    if incoming.request.method not in ("GET", "HEAD"):
        raise refusal(405, "this method is not allowed here", Allow="GET, HEAD")
    raise upgrade_required("this is a WebSocket server: connect with a WebSocket client")
