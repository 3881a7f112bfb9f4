"""What is asked about a request before it is served: the application's hooks.

This module owns what a hook may answer, and what becomes of one that fails.
"""

from __future__ import annotations

import inspect

import trio

from .._http.values import Accept, Answer, ConnectionRejected, Request, Response, both
from .._log import ConnectionLogger
from .._options import ProcessRequest, ServerStreamOptions, check_extra_headers


async def ask(
    request: Request,
    options: ServerStreamOptions,
    logger: ConnectionLogger,
    admit: ProcessRequest | None = None,
) -> Answer:
    """What `process_request` and then `admit` say.

    Raises:
        ConnectionRejected: with 500, where one of them failed.
    """
    answer: Answer = None
    asked = "process_request"
    try:
        if options.process_request is not None:
            answer = await _run_process_request(options.process_request, request)
            check_answer(answer, request)
        if admit is not None and not isinstance(answer, Response):
            asked = "a hook"
            further = await _run_process_request(admit, request)
            answer = further if isinstance(further, Response) else both(answer, further)
    except Exception as exc:
        logger.exception("%s failed for %s %s", asked, request.method, request.target)
        raise ConnectionRejected(Response(500, body="Internal server error.\n")) from exc
    return answer


@trio.lowlevel.disable_ki_protection
async def _run_process_request(process_request: ProcessRequest, request: Request) -> Answer:
    answer = process_request(request)
    if inspect.isawaitable(answer):
        answer = await answer
    return answer


def check_answer(answer: object, request: Request) -> None:
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
