"""Handlers: what one is, how it is run, and what becomes of what it raises.

This module owns `on_handler_error`, and counts errors. It also deals with what the endpoints of a
`Router` raise, and with a stream that fails before there is a handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast, final

import trio

from .._arguments import awaitable
from .._connection.websocket import WebSocket
from .._http.values import Request
from .._log import ConnectionLogger
from .._nursery import errors_in, forget_tracebacks, leaf_exceptions
from .._options import HandlerErrorPolicy

#: What serves one connection. The connection is closed when it returns. A `Router` is one.
Handler: TypeAlias = Callable[[WebSocket], Awaitable[object]]


@trio.lowlevel.disable_ki_protection
async def run_handler(handler: Handler, websocket: WebSocket) -> None:
    """Run `handler`, which Ctrl-C may interrupt, unlike the server around it.

    Raises:
        TypeError: it is not async.
    """
    await awaitable(handler(websocket), handler)


@final
class Failures:
    """What became of exceptions that were raised for one connection.

    Args:
        policy: the option `on_handler_error`.
        stop: called with an exception that shuts the server down and comes out of it.
    """

    def __init__(self, policy: HandlerErrorPolicy, stop: Callable[[BaseException], None]) -> None:
        self._policy: HandlerErrorPolicy = policy
        self._stop = stop
        #: How many handlers and endpoints failed.
        self.total = 0

    def of_handler(
        self, websocket: WebSocket, exc: BaseException, logger: ConnectionLogger
    ) -> bool:
        """Deal with what a handler raised. False means a cancellation, which has to go on."""
        errors = [error for error in errors_in(exc) if not websocket._ending.is_end(error)]
        if not errors:
            # Either the handler was cancelled, or it noticed that its connection was over. The
            # latter is how many handlers end, and no error.
            return not any(isinstance(leaf, trio.Cancelled) for leaf in leaf_exceptions(exc))
        error = _without_cancelled(exc, errors)
        self.total += 1
        policy = self._policy
        if policy == "propagate" or not isinstance(error, Exception):
            self._stop(error)
        elif policy == "log":
            logger.error("the handler failed: %r", error, exc_info=error)
        else:
            try:
                policy(websocket, error)
            except Exception as again:
                logger.exception("on_handler_error itself failed, over %r", error)
                # It may be `error` itself. Frames of ours hold that, and its traceback holds them.
                forget_tracebacks(again)
        return True

    def of_endpoint(self, request: Request, exc: BaseException, logger: ConnectionLogger) -> None:
        """Deal with what an endpoint raised. There is no connection to give to a callback."""
        error = _without_cancelled(exc, errors_in(exc))
        self.total += 1
        if self._policy == "propagate":
            self._stop(error)
        else:
            what = "the endpoint of %s %s failed: %r"
            logger.error(what, request.method, request.target, error, exc_info=error)

    def of_stream(self, exc: BaseException, what: str, peer: str, logger: ConnectionLogger) -> None:
        """Deal with what a stream, a hook or a mistake of ours raised before there was a handler.

        The other connections do not notice, unless it is something like `SystemExit`.
        """
        if all(isinstance(error, Exception) for error in errors_in(exc)):
            logger.error("%s dropped: %s failed", peer, what, exc_info=exc)
        else:
            self._stop(exc)


def _without_cancelled(exc: BaseException, errors: list[BaseException]) -> BaseException:
    """The one error in `exc`, or a group of them, less the cancellations beside them."""
    if len(errors) == 1:
        return errors[0]
    group = cast("BaseExceptionGroup[BaseException]", exc)
    return group.split(trio.Cancelled)[1] or group
