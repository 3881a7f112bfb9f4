"""Guards against calls from the wrong place: outside of trio, or in another thread.

This module owns the errors that such a call gets. The objects of trio_ws, like those of trio, are
not thread-safe. But much would seem to work from another thread until the two threads meet.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import trio

#: The name of the module that ``trio-ws serve`` is importing, if it is.
IMPORTING: Final = ContextVar("IMPORTING", default="")


def check_in_trio(name: str) -> None:
    """Raise `RuntimeError` unless a trio task is running, and the program is meant to do things.

    A later error would be obscure. So would a server that a module starts while it is imported: it
    would keep the command from serving that module.
    """
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            f"{name}() needs trio, and no trio task is running here: start the program with "
            "trio.run(main), not with asyncio.run; in a thread, call it with trio.from_thread.run"
        )
    if module := IMPORTING.get():
        raise RuntimeError(
            f"{module!r} calls {name}() while it is imported: put its trio.run(…) under "
            "if __name__ == '__main__':"
        )


def in_other_thread(thing: str, method: str) -> RuntimeError:
    """The error to raise in a thread that `thing` does not belong to."""
    return RuntimeError(
        f"this {thing} belongs to the thread in which trio runs it: from another thread, call its "
        f"methods with trio.from_thread.run_sync({method}, …), and its async methods with "
        "trio.from_thread.run"
    )
