"""Where code may run: in a task of trio, and in the thread whose run a thing belongs to.

This module owns how a call from anywhere else is told so. Nothing here is thread-safe, like trio's
own objects; but much would seem to work from another thread, for as long as the two do not meet.
"""

from __future__ import annotations

import trio


def check_in_trio(name: str) -> None:
    """Raise `RuntimeError` unless a task of trio runs this: later, an obscure error would come."""
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            f"{name}() needs trio, and this is no task of trio's: start the program with "
            "trio.run(main), not with asyncio.run; in a thread, call it by trio.from_thread.run"
        )


def in_other_thread(thing: str, method: str) -> RuntimeError:
    """What to raise where this is not the thread that `thing` belongs to."""
    return RuntimeError(
        f"this {thing} belongs to the thread in which trio runs it: from another, call its methods "
        f"by trio.from_thread.run_sync({method}, …), and those that are async by "
        "trio.from_thread.run"
    )
