"""A nursery that ends with its connection: what `WebSocket.open_nursery` gives.

This module owns which of its tasks' errors only say that the connection is over. `ending` decides
when the nursery ends.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

from .._errors import ConnectionLost
from .._nursery import leaf_exceptions, only_exception, protected_context, raise_as_is
from .ending import Ending


@protected_context
async def open_nursery_until(ending: Ending) -> AsyncGenerator[trio.Nursery, None]:
    """A nursery that is cancelled at the `ending`; see `WebSocket.open_nursery`."""
    scope = trio.CancelScope()
    ending.enter_nursery(scope)
    failures: list[BaseException] = []
    try:
        with scope:
            async with trio.open_nursery() as nursery:
                yield nursery
    except BaseExceptionGroup as group:
        failures = _failures_in(group, ending)
    finally:
        ending.leave_nursery(scope)
    if failures:
        raise_as_is(failures.pop(0))


def _failures_in(group: BaseExceptionGroup[BaseException], ending: Ending) -> list[BaseException]:
    """The exceptions that leave the block, where its tasks raised `group`."""
    _, rest = group.split(lambda exc: ending.is_end_or_our_close(exc))  # noqa: PLW0108 - it takes no method
    if rest is not None:
        alone = only_exception(rest)
        return [alone if isinstance(alone, KeyboardInterrupt) else rest]
    return [exc for exc in leaf_exceptions(group) if isinstance(exc, ConnectionLost)]
