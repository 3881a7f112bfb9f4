"""The end of a server: how far it has come, why, and which waits it cuts short.

This module owns that one mechanism. `server` decides in what order a server then ends, `draining`
which connection is closed when, and `visit` what to tell a client.

| phase | connections | a client that asks for one | a page | what leads on |
|---|---|---|---|---|
| SERVING | live | gets it | is answered | `drain`, `begin`, `fail` |
| DRAINING | close one by one, or finish | 503 (*) | is answered, as the last one | all of these |
| ENDING | are closed | 503 | is not waited for | - |

There is no way back.

(*) In a drain that leaves new clients to other processes, those that are here already get it.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import trio

from .._errors import CloseCode

#: A client that a drain turns away is asked to wait for at most this many seconds. A drain may take
#: hours, and another server has taken over long before its end.
LONGEST_RETRY: Final = 60


class Phase(enum.Enum):
    """The phases of the table above."""

    SERVING = enum.auto()
    DRAINING = enum.auto()
    ENDING = enum.auto()


@final
@dataclass(frozen=True)
class Drain:
    """What `WebSocketServer.drain` was asked for.

    Attributes:
        seconds: how long it takes at most.
        close: the code and reason of its Close frames.
        waits: connections are left to finish, and closed only when the time is over.
        refuses: new clients are turned away. Otherwise they are left to other processes, which
            accept from the same sockets, and those that this one has accepted already are let in.
    """

    seconds: float
    close: tuple[int, str]
    waits: bool
    refuses: bool


@final
class Shutdown:
    """Goes from phase to phase. Its end cuts short what waits for clients at that moment.

    Attributes:
        phase: how far it has come.
        close: the code and reason of the Close frames that it sends.
        failures: what comes out of the server in the end, at most one. A list, so that whoever
            raises it can let go of it.
    """

    def __init__(self) -> None:
        self.phase = Phase.SERVING
        self.close: tuple[int, str] = (int(CloseCode.GOING_AWAY), "")
        self.failures: list[BaseException] = []
        self._drain: Drain | None = None
        self._drain_begun = trio.Event()
        self._begun = trio.Event()
        self._waits: dict[trio.CancelScope, None] = {}

    @property
    def has_begun(self) -> bool:
        """Whether the server is ENDING."""
        return self.phase is Phase.ENDING

    @property
    def turns_away(self) -> bool:
        """Whether a client that asks for a WebSocket is told to try again later, in a drain."""
        return self.phase is Phase.DRAINING and self._drain is not None and self._drain.refuses

    @property
    def retry_after(self) -> int:
        """After how many seconds a client that is turned away now should try again.

        The clients of a drain are spread over its time.
        """
        if self._drain is None:
            return 1
        longest = int(min(self._drain.seconds, LONGEST_RETRY))
        return random.randint(1, max(1, longest))  # noqa: S311 - no secret

    async def wait_drain(self) -> Drain:
        """Wait until there is something to drain; for ever if the server ends without."""
        await self._drain_begun.wait()
        assert self._drain is not None
        return self._drain

    async def wait_begun(self) -> None:
        """Wait until the server is ENDING."""
        await self._begun.wait()

    def drain(self, drain: Drain) -> None:
        """Let the server end by and by. Lets it end now if it is doing so already."""
        if self.phase is Phase.SERVING:
            self.phase = Phase.DRAINING
            self._drain = drain
            self._drain_begun.set()
        else:
            self.begin(*drain.close)

    def begin(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Let the server end. Does nothing when it is ending already."""
        if self.phase is not Phase.ENDING:
            self.phase = Phase.ENDING
            self.close = (int(code), reason)
            self._begun.set()
            for wait in self._waits:
                wait.cancel()

    def fail(self, exc: BaseException) -> None:
        """Let the server end, and then raise `exc`, unless something else is raised already."""
        if not self.failures:
            self.failures.append(exc)
        self.begin()

    @contextmanager
    def cutting_short(self, deadline: float) -> Generator[trio.CancelScope, None, None]:
        """Wait within the block, until `deadline` at most, or until the shutdown begins.

        The scope says whether the block was cut short. A block that is entered after the shutdown
        began has only its deadline: this is how the client is told.
        """
        with trio.CancelScope(deadline=deadline) as scope:
            self._waits[scope] = None
            try:
                yield scope
            finally:
                del self._waits[scope]
