"""``trio-ws serve --reload``: one worker, restarted when a source file changes. For development.

This module owns looking at files, and when to start and stop. The processes are `workers`'.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from .._nursery import open_bare_nursery
from .serving import announce
from .workers import Crew, Tend, Worker

logger = logging.getLogger("trio_ws.serve")

#: How often the files are looked at, in seconds.
INTERVAL: Final = 0.3


def reload_worker(directory: Path, where: str) -> Tend:
    """Keep one worker that runs what is in `directory` now.

    It is stopped before the next is started, because the application may hold what only one can
    have. One that ends by itself has something to be mended: it is started again after a change.
    """

    async def tend(crew: Crew) -> None:
        seen = await trio.to_thread.run_sync(modification_times, directory)
        while True:
            worker = await crew.start(1)
            async with open_bare_nursery() as nursery:
                nursery.start_soon(_tell, worker, where)
                changed, seen = await _wait_for_change(directory, seen)
                nursery.cancel_scope.cancel()
            logger.warning("%s changed: starting again", changed)
            await crew.stop([worker])

    return tend


async def _tell(worker: Worker, where: str) -> None:
    if await worker.wait_ready():
        announce(where)
    await worker.wait_ended()
    logger.error("%s %s; waiting for a change", worker, worker.how_it_ended)


async def _wait_for_change(
    directory: Path, before: dict[Path, int]
) -> tuple[Path, dict[Path, int]]:
    """One of the files that changed, appeared or went away, and all as they are now."""
    while True:
        await trio.sleep(INTERVAL)
        now = await trio.to_thread.run_sync(modification_times, directory)
        changed = sorted(path for path, _ in before.items() ^ now.items())
        if changed:
            return changed[0].relative_to(directory), now


def modification_times(directory: Path) -> dict[Path, int]:
    """When each Python file under `directory` was changed last."""
    times: dict[Path, int] = {}
    for path in _python_files(directory):
        with suppress(FileNotFoundError):  # meanwhile; an editor replaces it, perhaps
            times[path] = path.stat().st_mtime_ns
    return times


def _python_files(directory: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(directory):
        folder = Path(name)
        # Neither what is hidden, nor other people's packages: those are many, and do not change.
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__pycache__", "node_modules"))
            and not (folder / name / "pyvenv.cfg").exists()
        ]
        yield from (folder / name for name in files if name.endswith(".py"))
