"""One of several processes that a broker joins: publishes, listens, and reports on stdout.

    python -m tests.backplane.worker URL MODE NAME COUNT PAUSE

It says ``ready`` when it is subscribed. Told to go on, by a line on its stdin, it publishes COUNT
messages, PAUSE seconds apart, and says ``published`` when the broker has them. Told the names of
others, it waits for their last messages, and says what it has received from whom.
"""

from __future__ import annotations

import json
import sys
from math import inf
from typing import Any

import trio

from trio_ws.backplane import BackplaneMessage, Position, RedisBackplane

TOPIC = "everybody"

#: For the last message to come, on a busy machine.
PATIENCE = 100


class Worker:
    def __init__(self, name: str) -> None:
        self.name = name
        self.received: dict[str, list[int]] = {}
        self.gaps: list[str | None] = []
        self.attached: set[str] = set()

    def note_attached(self, topic: str, _: Position) -> None:
        if topic in self.attached:
            self.gaps.append(topic)
        self.attached.add(topic)

    def deliver(self, received: BackplaneMessage) -> None:
        message = received.message
        assert isinstance(message, str)
        name, number = message.split()
        self.received.setdefault(name, []).append(int(number))

    async def wait_for_last(self, names: list[str], count: int) -> None:
        with trio.move_on_after(PATIENCE):
            while any(self.received.get(name, [])[-1:] != [count - 1] for name in names):
                await trio.sleep(0.01)
        await trio.sleep(0.1)  # for what may come too often

    def report(self, what: str, **more: Any) -> None:
        sys.stdout.write(json.dumps({"what": what, "name": self.name, **more}) + "\n")
        sys.stdout.flush()


async def main(url: str, mode: Any, name: str, count: int, pause: float) -> None:
    worker = Worker(name)
    # All that is published is kept: on a busy machine one process may be far behind the others, and
    # Redis may be silent for long.
    backplane = RedisBackplane(url, mode=mode, stream_length=inf, ping_timeout=PATIENCE)
    backplane.subscribe(TOPIC)
    async with trio.open_nursery() as nursery:
        await nursery.start(backplane.run, worker.deliver, worker.gaps.append, worker.note_attached)
        await backplane.wait_subscribed()
        worker.report("ready")
        stdin = trio.lowlevel.FdStream(sys.stdin.fileno())
        assert await stdin.receive_some()
        for number in range(count):
            await backplane.publish_wait(TOPIC, f"{name} {number}")
            if pause:
                await trio.sleep(pause)
        await backplane.flush()
        worker.report("published")
        names = json.loads(await stdin.receive_some() or b"[]")
        await worker.wait_for_last(names, count)
        worker.report("received", received=worker.received, gaps=worker.gaps)
        await stdin.receive_some()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    url, mode, name, count, pause = sys.argv[1:]
    trio.run(main, url, mode, name, int(count), float(pause))
