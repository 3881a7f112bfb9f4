"""A process that reads a backlog over Redis, and says how much memory that took.

    python -m tests.backplane.reader URL TOPIC...

It says ``ready`` when it is subscribed to the topics, and waits for a line on its stdin that says
how many messages to wait for. It reports its resident memory in bytes: before, at most since then,
and after a look at the past of the first topic besides.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import trio

from trio_ws.backplane import BackplaneMessage, RedisBackplane

STATUS = Path("/proc/self/status")

#: For the last message to come.
PATIENCE = 60


def memory(name: str) -> int:
    """Bytes that are resident, now (``VmRSS``) or at most since `forget_peak` (``VmHWM``)."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def report(what: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
    sys.stdout.flush()


async def main(url: str, topics: list[str]) -> None:
    received = 0

    def deliver(_: BackplaneMessage) -> None:
        nonlocal received
        received += 1

    backplane = RedisBackplane(url, mode="streams")
    for topic in topics:
        backplane.subscribe(topic)
    async with trio.open_nursery() as nursery:
        await nursery.start(backplane.run, deliver, lambda topic: None)
        await backplane.wait_subscribed()
        report("ready")
        stdin = trio.lowlevel.FdStream(sys.stdin.fileno())
        expected = int(await stdin.receive_some())
        forget_peak()
        before = memory("VmRSS")
        with trio.move_on_after(PATIENCE):
            while received < expected:
                await trio.sleep(0.01)
        gaps = backplane.statistics().gaps
        report("read", received=received, gaps=gaps, before=before, peak=memory("VmHWM"))
        past = await backplane.read(topics[0], None, 3)
        report("looked back", messages=len(past.messages), peak=memory("VmHWM"))
        await stdin.receive_some()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2:])
