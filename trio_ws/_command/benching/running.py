"""A run in this process: signals, the terminal, the limit on open files, and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Unpack, final

import trio

from ..._client.client import open_websocket_url
from ..._keywords import ClientKeywords
from ..._nursery import open_bare_nursery
from ..exits import DONE, FAILED, SIGNALLED
from ..serving import STOP_SIGNALS
from ..terminal import print_all
from .alarm import open_alarm
from .load import Load
from .plan import Plan
from .progress import is_for_people, show_progress
from .report import as_json, as_text


async def bench(url: str, plan: Plan, *, in_json: bool, **options: Unpack[ClientKeywords]) -> int:
    """Put the load on a server, print the report, and return the exit code.

    A signal ends the run early. A second one ends the process at once, without a report.

    Args:
        url: where to connect.
        plan: the load.
        in_json: whether the report is JSON.
        options: those of `open_websocket_url`. Text has to come as bytes.
    """
    connect = partial(open_websocket_url, url, **options)
    with open_alarm() as wake_after, trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        load = Load(plan, connect, wake_after=wake_after)
        stopper = _Stopper(load)
        async with open_bare_nursery() as nursery:
            nursery.start_soon(stopper.obey, signals)
            if is_for_people(sys.stderr):
                nursery.start_soon(show_progress, load, sys.stderr)
            try:
                await load.run()
            finally:
                nursery.cancel_scope.cancel()
    print_all(as_json(url, load) + "\n" if in_json else as_text(url, load))
    if stopper.signal:
        return SIGNALLED + stopper.signal
    return FAILED if load.tally.refused or load.tally.lost else DONE


@final
class _Stopper:
    """Stops a load when a signal asks for it.

    Attributes:
        signal: the number of the signal; 0 if there was none.
    """

    def __init__(self, load: Load) -> None:
        self.signal = 0
        self._load = load

    async def obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if self.signal:
                os._exit(SIGNALLED + number)
            self.signal = number
            self._load.stop()


def allow_many_sockets() -> None:
    """Raise the limit on open files as far as the system lets us: it is 1024 on many systems."""
    if sys.platform == "win32":
        return  # it has no such limit
    import resource  # noqa: PLC0415 - Windows has none

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError):  # macOS says "no limit", and takes it for none that one can set
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
