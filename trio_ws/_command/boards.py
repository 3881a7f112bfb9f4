"""The numbers of workers, in memory that each shares with its supervisor.

This module owns the layout of that memory, and what becomes of it when a worker has ended.

A worker that is killed says nothing more, and what it wrote before must not be lost, nor be counted
twice: Prometheus takes a counter that falls for one that has begun anew. So each worker process
has a *board* of its own, which outlives it. When the worker has ended, the supervisor adds what
was counted on its board to what earlier workers have counted, and takes the board down.

A board has room for two rows of numbers. The worker writes one of them while the other counts, and
then says which counts. So a row is whole whenever the worker is killed.

The mode of prometheus-client for several processes would do with files, one for each process that
ever was, written with each increment. Here the numbers are read from where they are counted anyway,
ten times a second at most.
"""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, final
from zlib import crc32

import trio

from .._metering import METRICS, SIZE, Numbers, add, add_counted, no_numbers
from ..metrics._metrics import measuring

logger = logging.getLogger("trio_ws.serve")

#: What tells one table of metrics from another: after an update, a new worker may have another
#: than its supervisor.
TABLE: Final = crc32(repr([(each.name, each.bounds, [*each.places]) for each in METRICS]).encode())

#: How many bytes a board has: the number of the row that counts, and two rows.
_BYTES: Final = 8 * (1 + 2 * SIZE)


@final
class Board:
    """What one worker has counted, as the supervisor and the worker see it.

    Args:
        descriptor: of the memory. It belongs to this object.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _BYTES)
        self._view = memoryview(self._memory).cast("d")

    def write(self, numbers: Sequence[float]) -> None:
        """Replace what is written on it. Only one process may do so."""
        turn = int(self._view[0]) + 1
        start = _start(turn)
        self._view[start : start + SIZE] = array("d", numbers)
        self._view[0] = turn

    def read(self) -> Numbers:
        while True:
            turn = int(self._view[0])
            start = _start(turn)
            numbers = array("d", self._view[start : start + SIZE].tobytes()).tolist()
            if self._view[0] == turn:  # else it may have been written over meanwhile
                return numbers

    def close(self) -> None:
        self._view.release()
        self._memory.close()
        os.close(self.descriptor)


@asynccontextmanager
async def measured_on_board(descriptor: int, table: int) -> AsyncGenerator[None, None]:
    """Keep the numbers of this worker on its board for as long as the block goes on.

    Args:
        descriptor: of the board.
        table: what the supervisor's `TABLE` is.
    """
    if table != TABLE:
        os.close(descriptor)
        logger.warning("metrics leave this worker out: the supervisor is of another version")
        yield
        return
    board = Board(descriptor)
    try:
        async with measuring(board.write):
            yield
    finally:
        board.close()


def _start(turn: int) -> int:
    return 1 + SIZE * (turn % 2)


@final
class Boards:
    """The boards of all workers, and what those that are gone have counted."""

    def __init__(self) -> None:
        self._boards: dict[Board, None] = {}
        self._ended = no_numbers()

    def put_up(self) -> Board:
        """A board for a new worker.

        Raises:
            OSError: the system has no memory or no descriptor for it.
        """
        descriptor = _shared_memory()
        try:
            os.ftruncate(descriptor, _BYTES)
            board = Board(descriptor)
        except BaseException:  # it goes on
            os.close(descriptor)
            raise
        self._boards[board] = None
        return board

    def take_down(self, board: Board) -> None:
        """Its worker has ended, or was never started. What it counted is kept."""
        del self._boards[board]
        add_counted(self._ended, board.read())
        board.close()

    async def read(self) -> Numbers:
        """The sum of all. What is counted in it never falls."""
        await trio.lowlevel.checkpoint()
        total = self._ended.copy()
        for board in self._boards:
            add(total, board.read())
        return total


def _shared_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trio_ws_metrics")
    with tempfile.TemporaryFile() as file:  # pragma: no cover - not on Linux
        return os.dup(file.fileno())
