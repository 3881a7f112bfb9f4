"""How a connection ends: its states, the steps between them, and what each step says and allows.

Every end goes through `Ending`. The first step that knows the reason decides it. Later steps can
only shorten the time that is left. The way from the first step to the closed socket takes at most
`close_timeout`.

======  ======================================================  ===============================
state   what is so                                              steps that lead out of it
======  ======================================================  ===============================
OPEN    messages go both ways                                   all
SAID    our Close frame is out; the peer's is awaited           all but WE_CLOSE
BROKEN  a write failed; the reader task may still find out why  PEER_CLOSES, FAIL, LOSE, SETTLE
FAILED  we gave the connection up and said why                  PEER_CLOSES, LOSE, SETTLE
AGREED  the peer's Close frame was heeded, and ours is out      LOSE, SETTLE
LOST    no byte will go either way                              SETTLE
CLOSED  the socket is closed                                    –
======  ======================================================  ===============================

===========  =====================================  ======  ======================================
step         when                                   leads   what it does
                                                    to
===========  =====================================  ======  ======================================
WE_CLOSE     `aclose`, the end of the block,        SAID    sends a Close frame
             shutdown, a timeout
PEER_CLOSES  its Close frame was heeded             AGREED  answers it, unless it is an answer
FAIL         the peer broke the protocol or fell    FAILED  sends a Close frame with the verdict,
             silent; a message is left unfinished           unless one is out
BREAK        a write failed                         BROKEN  sends nothing; `POST_MORTEM` is left
LOSE         reading failed, or the peer hung up    LOST    sends nothing; no time is left
             without a Close frame
SETTLE       the socket is closed                   CLOSED  tells everybody who waits
===========  =====================================  ======  ======================================

A step that is not in the row of the state changes nothing but the time.

`aclose`, `leave` and `close` take the step WE_CLOSE. `heed_peer` takes PEER_CLOSES, or FAIL where
the peer broke the protocol. `fail`, `lose` and `settle` take the step of their name, and
`write_failed` takes BREAK, or LOSE where the reader task is paused. `abort` takes none: it leaves
no time.

The peer's last frame is heeded a moment after it was read, so that the application can answer what
came before it (RFC 6455 section 5.5.1 allows an endpoint to delay its Close frame). A step that
ends the connection in that moment heeds the frame first, because the peer was the one that began.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from math import inf
from typing import Final, final

import trio

from .._errors import (
    CloseCode,
    CloseReason,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionLost,
    Initiator,
)
from .._log import ConnectionLogger
from .._nursery import forget_tracebacks
from .._protocol.events import Close, Violation
from .._protocol.wire import Wire
from .._reasons import reason_of
from .frame_log import log_frame
from .inbox import Inbox
from .liveness import Liveness
from .outbox import Outbox
from .reading import Reading

#: After a failed write, the reader task has this many seconds to find out why: the reason may be a
#: Close frame that arrived before the connection broke.
POST_MORTEM = 1.0


class State(enum.Enum):
    """Where a connection is in its life. There is no state before OPEN: it is born open."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Phase(enum.Enum):
    """The states of the table above. To the application, those in the middle are all CLOSING."""

    OPEN = enum.auto()
    SAID = enum.auto()
    BROKEN = enum.auto()
    FAILED = enum.auto()
    AGREED = enum.auto()
    LOST = enum.auto()
    CLOSED = enum.auto()

    __hash__ = object.__hash__  # Enum's own is a function in Python, which opening would notice


class Step(enum.Enum):
    """The steps of the table above."""

    WE_CLOSE = enum.auto()
    PEER_CLOSES = enum.auto()
    FAIL = enum.auto()
    BREAK = enum.auto()
    LOSE = enum.auto()
    SETTLE = enum.auto()

    __hash__ = object.__hash__


#: The two tables as one: from where each step leads, and where to.
STEPS: Final[Mapping[Phase, Mapping[Step, Phase]]] = {
    Phase.OPEN: {
        Step.WE_CLOSE: Phase.SAID,
        Step.PEER_CLOSES: Phase.AGREED,
        Step.FAIL: Phase.FAILED,
        Step.BREAK: Phase.BROKEN,
        Step.LOSE: Phase.LOST,
        Step.SETTLE: Phase.CLOSED,
    },
    Phase.SAID: {
        Step.PEER_CLOSES: Phase.AGREED,
        Step.FAIL: Phase.FAILED,
        Step.BREAK: Phase.BROKEN,
        Step.LOSE: Phase.LOST,
        Step.SETTLE: Phase.CLOSED,
    },
    Phase.BROKEN: {
        Step.PEER_CLOSES: Phase.AGREED,
        Step.FAIL: Phase.FAILED,
        Step.LOSE: Phase.LOST,
        Step.SETTLE: Phase.CLOSED,
    },
    Phase.FAILED: {
        Step.PEER_CLOSES: Phase.AGREED,
        Step.LOSE: Phase.LOST,
        Step.SETTLE: Phase.CLOSED,
    },
    Phase.AGREED: {Step.LOSE: Phase.LOST, Step.SETTLE: Phase.CLOSED},
    Phase.LOST: {Step.SETTLE: Phase.CLOSED},
    Phase.CLOSED: {},
}

OPEN = State.OPEN  # asked for with every message


def closed_by_us(connection_id: str) -> trio.ClosedResourceError:
    """The error for a task that uses a connection after this side had closed it.

    It has the connection's `id`, and not the connection, which it would keep alive, and which can
    neither be copied nor pickled. A class of our own would stand in tracebacks, where nobody knows
    it.
    """
    error = trio.ClosedResourceError("this side closed the WebSocket connection")
    vars(error)["connection_id"] = connection_id
    return error


@final
class Ending:
    """The end of one connection, from before it began; see the module.

    Args:
        connection_id: the connection's, for its errors.
        wire: makes Close frames, and has the peer's last frame.
        inbox: told when nothing more will be received.
        liveness: knows whether the reader task is paused.
        close_timeout: how many seconds closing may take.
        logger: the connection's.
    """

    __slots__ = (
        "_cause",
        "_close_timeout",
        "_finished",
        "_id",
        "_inbox",
        "_liveness",
        "_logger",
        "_nurseries",
        "_outbox",
        "_phase",
        "_reading",
        "_scope",
        "_wire",
        "deadline",
        "is_ours",
        "reason",
        "state",
    )

    # Given by `attach`, before anybody else has the connection.
    _outbox: Outbox
    _reading: Reading

    def __init__(
        self,
        connection_id: str,
        wire: Wire,
        inbox: Inbox,
        liveness: Liveness,
        *,
        close_timeout: float,
        logger: ConnectionLogger,
    ) -> None:
        self._id = connection_id
        self._wire = wire
        self._inbox = inbox
        self._liveness = liveness
        self._close_timeout = close_timeout
        self._logger = logger
        self._phase = Phase.OPEN
        #: The phase, as the application may know it.
        self.state = State.OPEN
        #: Set once, when the outcome is known, which may be before the socket is closed.
        self.reason: CloseReason | None = None
        #: What the transport said, for the application's traceback.
        self._cause: Exception | None = None
        #: The application called `aclose`, or left: using the connection is now its mistake.
        self.is_ours = False
        #: When the closing has to be over.
        self.deadline = inf
        #: Of the reader task, while there is one: that deadline is its.
        self._scope: trio.CancelScope | None = None
        #: Where tasks wait for the closed socket; made for the first.
        self._finished: trio.Event | None = None
        #: Of the blocks of `open_nursery` that are open; made for the first.
        self._nurseries: set[trio.CancelScope] | None = None

    def attach(self, outbox: Outbox, reading: Reading) -> None:
        """Have what is written and who reads follow the end. Called once, at the start."""
        self._outbox = outbox
        self._reading = reading

    # What begins the end, and what goes on with it…

    def aclose(self, code: int, reason: str) -> None:
        """Close on the application's behalf, which from now on must not use the connection."""
        self.is_ours = True
        self._say_close(code, reason)
        self._inbox.discard()
        self._wire.discard()
        if self._phase is Phase.CLOSED:
            self._cancel_nurseries()

    async def leave(self, code: int) -> None:
        """Close and wait until that is through, at the end of the connection's own block.

        A cancellation does not cut it short.
        """
        self.aclose(code, "")
        if self.state is not State.CLOSED:
            with trio.CancelScope(shield=True):
                await self.wait_until_finished()

    @trio.lowlevel.enable_ki_protection
    def close(self, code: int, reason: str, *, failed: bool = False) -> None:
        """Start closing without waiting, on behalf of the server rather than of the handler.

        The handler may still receive what came before, and then finds the connection ended: in
        good order, unless it `failed`.
        """
        if self.state is OPEN:
            self._say_close(code, reason)
            self._decide(CloseReason(code, reason, Initiator.LOCAL, failed=failed))

    def _say_close(self, code: int, reason: str) -> None:
        self.heed_peer()
        if self._phase is Phase.OPEN:
            self._send_close(code, reason)
            self._go(Step.WE_CLOSE, self._close_timeout)

    def heed_peer(self) -> None:
        """Act on the peer's last frame, if it has come and nothing has acted on it yet.

        The reader task does so when the application has dealt with what came before. Each step that
        ends the connection earlier comes through here first.
        """
        end = self._wire.end
        if isinstance(end, Violation):
            self._give_up(end.code, end.reason)
        elif end is not None and self._phase is not Phase.AGREED:
            self._agree(end)

    def _agree(self, close: Close) -> None:
        ours = self._wire.close_sent
        code = close.code
        if ours is not None and code == CloseCode.NO_STATUS_RECEIVED:
            code = ours  # an answer without a code agrees with ours
        # Leaving by an exception sends 1011 (RFC 6455 section 7.4.1): that is no orderly end.
        raised = ours == CloseCode.INTERNAL_ERROR
        by = Initiator.REMOTE if ours is None else Initiator.LOCAL
        # Decided before it is answered: a peer that is gone by now has closed all the same.
        self._decide(CloseReason(code, close.reason, by, failed=raised))
        if ours is None and self._leads_on(Step.PEER_CLOSES):
            self._send_close(close.code, close.reason)
        self._go(Step.PEER_CLOSES, self._close_timeout)

    def fail(self, code: int, reason: str) -> None:
        """Give the connection up, for what is not the peer's last frame."""
        self.heed_peer()
        self._give_up(code, reason)

    def _give_up(self, code: int, reason: str) -> None:
        """_Fail the WebSocket Connection_ (RFC 6455 section 7.1.7)."""
        # Decided before the peer is told, because telling it may break the connection.
        self._decide(CloseReason(code, reason, Initiator.LOCAL, failed=True))
        if self._wire.may_close and self._leads_on(Step.FAIL):
            self._send_close(code, reason)
        self._go(Step.FAIL, self._close_timeout)

    def write_failed(self, exc: Exception) -> None:
        """A write broke the connection. What the peer said before may still be there to be read."""
        if not isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError)):
            self._logger.error("the stream failed: %r", exc, exc_info=exc)
        if self._liveness.paused:  # the reader task will not get to it
            self.lose(exc, reason_of(exc))
            return
        if self.reason is None:
            self._keep_cause(exc)
        self._go(Step.BREAK, min(POST_MORTEM, self._close_timeout))

    def lose(self, exc: Exception | None, what: str) -> None:
        """The transport is gone, and with it what was unsent."""
        self.heed_peer()
        if self.reason is None and self._cause is None:
            self._keep_cause(exc)
        self._go(Step.LOSE, 0)
        self._decide(CloseReason(CloseCode.ABNORMAL_CLOSURE, what, Initiator.REMOTE))

    def lose_unread(self) -> None:
        """After a failed write: do not wait for what the peer may have said."""
        if self.reason is None and not self.is_ours:
            assert self._cause is not None
            self.lose(None, reason_of(self._cause))

    def abort(self) -> None:
        """No time is left: the reader task closes the socket at its next turn."""
        self._leave_seconds(0)
        if self._scope is not None:
            self._scope.cancel()

    def settle(self) -> None:
        """The socket is closed: everything that still waits for this connection learns it."""
        self._phase = STEPS[self._phase][Step.SETTLE]
        self.state = State.CLOSED
        cause = self._cause
        self._decide(
            CloseReason(
                CloseCode.ABNORMAL_CLOSURE,
                reason_of(cause) if cause else "no Close frame came before we hung up",
                Initiator.REMOTE if cause else Initiator.LOCAL,
            )
        )
        if self._finished is not None:
            self._finished.set()
        if self.is_ours:
            # Tasks that wait inside `open_nursery` are cancelled before they are told.
            self._cancel_nurseries()
        self._inbox.close()

    # The reader task, which brings it to the end…

    def open_scope(self) -> trio.CancelScope:
        """In which a reader task runs: until the deadline, whatever else is cancelled."""
        self._scope = trio.CancelScope(shield=True, deadline=self.deadline)
        return self._scope

    def close_scope(self, scope: trio.CancelScope) -> None:
        """That reader task was let go. By now there may be another."""
        if self._scope is scope:
            self._scope = None

    # What every step comes down to…

    def _leads_on(self, step: Step) -> bool:
        """Whether this step leads out of the state. One that does not sends nothing, either."""
        return step in STEPS[self._phase]

    def _go(self, step: Step, seconds: float) -> None:
        self._phase = STEPS[self._phase].get(step, self._phase)
        self._leave_seconds(seconds)

    def _leave_seconds(self, seconds: float) -> None:
        """From here on nothing is sent, and the reader task has this long to bring it to an end."""
        if self.state is OPEN:
            self.state = State.CLOSING
            self._outbox.seal()
            self._reading.reclaim()
        deadline = trio.current_time() + seconds
        if deadline < self.deadline:
            self.deadline = deadline
            if self._scope is not None:
                self._scope.deadline = deadline

    def _decide(self, reason: CloseReason) -> None:
        """Say how it ended: nothing more will be received. The first to say so is right."""
        if self.reason is None:
            self.reason = reason
            if not self.is_ours:
                self._inbox.close()
                self._wire.discard()
                self._end_nurseries()

    def _send_close(self, code: int, reason: str) -> None:
        log_frame(self._logger, "sent %s", Close(code, reason))
        self._outbox.write(self._wire.close(code, reason))

    def _keep_cause(self, exc: Exception | None) -> None:
        if exc is not None:
            forget_tracebacks(exc)
        self._cause = exc

    # Learning of it…

    @property
    def has_peer_closed(self) -> bool:
        """Whether the peer's Close frame was heeded: nothing more is expected from it."""
        return self._phase is Phase.AGREED

    async def wait_until_finished(self) -> None:
        """Wait for the closed socket."""
        if self.state is not State.CLOSED:
            if self._finished is None:
                self._finished = trio.Event()
            await self._reading.wait_for(self._finished.wait)

    def check_use(self) -> None:
        """Raise where the application closed the connection, and so must not use it."""
        if self.is_ours:
            raise self.error()

    def error(self) -> Exception:
        """The error for a task that uses the connection after its end is known."""
        if self.is_ours:
            return closed_by_us(self._id)
        return self._closed()

    def error_unless_chosen(self) -> ConnectionClosed | None:
        """What says how it ended; `None` while it is open, and where this side chose to end it."""
        reason = self.reason
        if reason is None or self.is_ours:
            return None
        is_chosen = reason.initiator is Initiator.LOCAL and not reason.failed
        return None if is_chosen else self._closed()

    def _closed(self) -> ConnectionClosed:
        assert self.reason is not None
        kind = ConnectionEnded if self.reason.orderly else ConnectionLost
        error = kind(self.reason)
        error.__cause__ = self._cause
        return error

    def no_more(self) -> Exception:
        """The same, for a receiver that has taken everything. The nurseries end with that."""
        self._cancel_nurseries()
        return self.error()

    def is_end(self, exc: BaseException) -> bool:
        """Whether `exc` says no more than that this connection, and not another, is over."""
        return isinstance(exc, ConnectionClosed) and exc.reason is self.reason

    def is_end_or_our_close(self, exc: BaseException) -> bool:
        """The same, for tasks that may learn in this way that another one called `aclose`."""
        is_ours = isinstance(exc, trio.ClosedResourceError)
        return self.is_end(exc) or (is_ours and vars(exc).get("connection_id") == self._id)

    # Nurseries that live no longer…

    def enter_nursery(self, scope: trio.CancelScope) -> None:
        """Have `scope` end with the connection, until `leave_nursery`."""
        if self._nurseries is None:
            self._nurseries = set()
        self._nurseries.add(scope)
        if self.reason is not None:
            self._end_nurseries()

    def leave_nursery(self, scope: trio.CancelScope) -> None:
        assert self._nurseries is not None
        self._nurseries.discard(scope)

    def limit_nurseries(self) -> None:
        """Let the time of the nurseries run from now: the peer's last frame is there.

        Counted from our answer instead, it would be longer by what the application takes.
        """
        self._end_nurseries()

    def _end_nurseries(self) -> None:
        """End the nurseries of `open_nursery`, in time for their last messages to be handled."""
        in_hand_at = self._inbox.in_hand_at
        if in_hand_at is None or self.is_ours:
            self._cancel_nurseries()  # nothing is in hand, or nobody may ask for more
            return
        # A receiver that comes back for more ends them earlier; see `no_more`.
        for scope in self._nurseries or ():
            scope.deadline = min(scope.deadline, in_hand_at + self._close_timeout)

    def _cancel_nurseries(self) -> None:
        for scope in self._nurseries or ():
            scope.cancel()
