"""A prompt by prompt_toolkit, with everything that one expects of an editor for one line.

It wants asyncio, which runs here in a thread of its own, for as long as the prompt is used. Lines
and text cross to and from trio as calls into that loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import in_terminal
from prompt_toolkit.history import History as PromptHistory

from .._nursery import open_bare_nursery
from .console import PROMPT, Console
from .history import History
from .terminal import pass_on_every_key

T = TypeVar("T")

#: How many seconds the thread may take to give the terminal back.
_PATIENCE = 2.0


class PromptConsole(Console):
    """A terminal in which prompt_toolkit asks for a line."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history
        self._session: PromptSession[str]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        # The thread outlives a cancellation, until it has put the terminal back.
        self._thread = trio.CancelScope(shield=True)
        self._token: trio.lowlevel.TrioToken

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        self._token = trio.lowlevel.current_trio_token()
        pass_on_every_key()
        # It would ask the terminal where the cursor is before each text that is shown. Only menus
        # need to know that, and there are none here.
        os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
        async with super().opened(), open_bare_nursery() as nursery:
            nursery.start_soon(self._run_thread)
            try:
                yield
            finally:
                with suppress(RuntimeError):  # the thread has failed, and its loop is closed
                    self._loop.call_soon_threadsafe(self._stop.set)
                # It cannot end while the terminal's output is stopped (Ctrl-S).
                self._thread.deadline = trio.current_time() + _PATIENCE

    async def _run_thread(self) -> None:
        with self._thread:
            await trio.to_thread.run_sync(self._run_loop, abandon_on_cancel=True)

    def _run_loop(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._session = PromptSession(
            history=_KeptHistory(self._history),
            reserve_space_for_menu=0,
            enable_suspend=True,
            # asyncio would take a KeyboardInterrupt for the end of the loop.
            interrupt_exception=_Interrupted,
        )
        await self._stop.wait()
        # The runner now cancels the prompt, and waits until it has ended.

    async def read_line(self) -> str | None:
        try:
            return await self._call(self._ask)
        except EOFError:
            return None
        except _Interrupted:
            raise KeyboardInterrupt from None

    async def _ask(self) -> str:
        line = await self._session.prompt_async(PROMPT, handle_sigint=False)
        # Bytes that are not UTF-8 come as surrogates, which no message can hold.
        return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    async def write(self, descriptor: int, text: str) -> None:
        await self._call(partial(self._show, descriptor, text))

    async def _show(self, descriptor: int, text: str) -> None:
        async with in_terminal():
            self.write_now(descriptor, text)

    async def _call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function in the thread's loop.

        When this is cancelled, it is cancelled there soon, and the prompt is not used again.
        """
        done = trio.Event()

        def tell(future: object) -> None:
            with suppress(trio.RunFinishedError):  # the thread was abandoned
                self._token.run_sync_soon(done.set)

        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        future.add_done_callback(tell)
        try:
            await done.wait()
        except trio.Cancelled:
            self._loop.call_soon_threadsafe(self._give_up, future)
            raise
        return future.result()

    def _give_up(self, future: Future[T]) -> None:
        self._session.app.erase_when_done = True  # a half-typed line would stay behind
        future.cancel()


class _Interrupted(Exception):
    """Ctrl-C was typed at the prompt."""


class _KeptHistory(PromptHistory):
    """Our history, as prompt_toolkit wants one."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._history.lines)

    def store_string(self, string: str) -> None:
        self._history.append(string)
