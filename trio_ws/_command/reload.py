"""``trio-ws serve --reload``: one worker, restarted when a source file changes. For development.

This module watches the files, and decides when to start and stop. `workers` owns the processes.
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

#: How often the files are checked, in seconds.
INTERVAL: Final = 0.3


def reload_worker(directory: Path, where: str) -> Tend:
    """Keep one worker that runs the current code in `directory`.

    The worker is stopped before the next one is started, because the application may hold something
    that only one process can have. If a worker ends by itself, the code has a fault, and the next
    worker is started after a change.
    """

    async def tend(crew: Crew) -> None:
        seen = await trio.to_thread.run_sync(modification_times, directory)
        while True:
            worker = await crew.start(1)
            async with open_bare_nursery() as nursery:
                nursery.start_soon(_tell, crew, worker, where)
                changed, seen = await _wait_for_change(directory, seen)
                nursery.cancel_scope.cancel()
            logger.warning("%s changed: starting again", changed)
            await crew.stop([worker])

    return tend


async def _tell(crew: Crew, worker: Worker, where: str) -> None:
    if await worker.wait_ready():
        announce(where, crew.manager)
    await worker.wait_ended()
    logger.error("%s %s; waiting for a change", worker, worker.how_it_ended)


async def _wait_for_change(
    directory: Path, before: dict[Path, int]
) -> tuple[Path, dict[Path, int]]:
    """Wait until files change, appear or go away. Returns one of them, and all current times."""
    while True:
        await trio.sleep(INTERVAL)
        now = await trio.to_thread.run_sync(modification_times, directory)
        changed = sorted(path for path, _ in before.items() ^ now.items())
        if changed:
            return changed[0].relative_to(directory), now


def modification_times(directory: Path) -> dict[Path, int]:
    """When each Python file under `directory` was last changed."""
    times: dict[Path, int] = {}
    for path in _python_files(directory):
        with suppress(FileNotFoundError):  # gone since; an editor may be replacing it
            times[path] = path.stat().st_mtime_ns
    return times


def _python_files(directory: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(directory):
        folder = Path(name)
        # Hidden folders and installed packages are left out: their many files do not change.
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__pycache__", "node_modules"))
            and not (folder / name / "pyvenv.cfg").exists()
        ]
        yield from (folder / name for name in files if name.endswith(".py"))
