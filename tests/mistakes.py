"""Mistakes of an application that is asked about a request."""

from __future__ import annotations

from typing import Any

import trio

from trio_ws import Request

#: The message of each error.
WHAT = "the database is down"


def fail(request: Request) -> Any:
    raise RuntimeError(WHAT)


async def fail_later(request: Request) -> Any:
    await trio.lowlevel.checkpoint()
    raise RuntimeError(WHAT)
