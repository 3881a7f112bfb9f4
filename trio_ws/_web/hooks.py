"""Asking the application about a request before it is served: `process_request` and hooks.

This module owns what a hook may answer, and what the client is told when a hook fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from .._http.values import Accept, Answer, ConnectionRejected, Request, Response, both
from .._log import ConnectionLogger
from .._options import ProcessRequest, check_extra_headers

#: Asks about a request. Gives the terms of a WebSocket, or raises `ConnectionRejected`.
Ask: TypeAlias = Callable[[Request], Awaitable[Accept | None]]


async def ask(
    request: Request,
    process_request: ProcessRequest | None,
    admit: ProcessRequest | None,
    logger: ConnectionLogger,
) -> Accept | None:
    """Ask `process_request` and then `admit`. Gives the terms on which they let the client in.

    Raises:
        ConnectionRejected: one of them gave a response of its own, or failed: that is a 500.
    """
    answer: Answer = None
    asked = "process_request"
    try:
        if process_request is not None:
            answer = await _run_hook(process_request, request)
            check_answer(answer, request)
        if admit is not None and not isinstance(answer, Response):
            asked = "a hook"
            further = await _run_hook(admit, request)
            answer = further if isinstance(further, Response) else both(answer, further)
    except Exception as exc:
        logger.exception("%s failed for %s %s", asked, request.method, request.target)
        raise ConnectionRejected(Response(500, body="Internal server error.\n")) from exc
    if isinstance(answer, Response):
        raise ConnectionRejected(answer)
    return answer


@trio.lowlevel.disable_ki_protection
async def _run_hook(hook: ProcessRequest, request: Request) -> Answer:
    answer = hook(request)
    if inspect.isawaitable(answer):
        answer = await answer
    return answer


def check_answer(answer: object, request: Request) -> None:
    """Check what a hook or an endpoint gave.

    Raises:
        TypeError: it is no answer at all.
        ValueError: it does not fit the request, or cannot be sent.
    """
    if isinstance(answer, Accept):
        check_extra_headers(answer.headers)
        if not request.is_upgrade:
            raise ValueError("process_request accepted a request that asks for no WebSocket")
        if answer.subprotocol not in (None, ..., *request.subprotocols):
            raise ValueError(f"the client did not offer the subprotocol {answer.subprotocol!r}")
    elif isinstance(answer, Response):
        if not 200 <= answer.status <= 599:
            raise ValueError(f"a final response has a status from 200 to 599, not {answer.status}")
    elif answer is not None:
        raise TypeError(f"process_request returns None, Accept or Response, not {answer!r}")
