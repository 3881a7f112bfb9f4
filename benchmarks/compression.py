"""What permessage-deflate's settings cost and give, on three kinds of traffic.

    python benchmarks/compression.py

For each: how many times smaller the messages become, CPU time for each message (compressing and
inflating), and the memory of one compressor. Prints a table in Markdown. The traffic is made up,
with a fixed seed, in the likeness of the real thing.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable

from trio_ws import Deflate
from trio_ws._protocol.deflate import Deflater, Inflater

ROUNDS = 5

LINES = (
    "the of and to in is that it was for on are as with they be at one have this from or had by",
    "hot but some what there we can out other were all your when up use word how said an each",
    "meeting tomorrow deploy server broken coffee thanks see you later works fixed release test",
)
WORDS = [word for line in LINES for word in line.split()]


def chat(rng: random.Random) -> bytes:
    """A line of chat, about 200 bytes of JSON."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 20)))
    return json.dumps(
        {
            "type": "message",
            "room": f"room-{rng.randint(1, 20)}",
            "user": {"id": rng.randint(1000, 9999), "name": rng.choice(WORDS).title()},
            "sent": f"2026-11-20T{rng.randint(10, 23)}:{rng.randint(10, 59)}:00Z",
            "text": text,
        }
    ).encode()


def ticks(rng: random.Random) -> bytes:
    """A batch of prices, about 2 KB of JSON."""
    return json.dumps(
        [
            {
                "symbol": rng.choice(("EURUSD", "GBPUSD", "USDJPY", "AUDUSD")),
                "bid": round(rng.uniform(0.5, 1.5), 5),
                "ask": round(rng.uniform(0.5, 1.5), 5),
                "time": 1_790_000_000 + rng.randint(0, 100_000),
            }
            for _ in range(25)
        ]
    ).encode()


def html(rng: random.Random) -> bytes:
    """A page or a part of one, about 20 KB."""
    rows = "".join(
        f'<tr class="row"><td class="name">{rng.choice(WORDS)}</td>'
        f'<td class="value">{rng.randint(0, 10_000)}</td>'
        f"<td>{' '.join(rng.choice(WORDS) for _ in range(12))}</td></tr>\n"
        for _ in range(130)
    )
    return f"<!DOCTYPE html><html><body><table>{rows}</table></body></html>".encode()


KINDS: dict[str, tuple[Callable[[random.Random], bytes], int]] = {
    "chat": (chat, 3000),
    "ticks": (ticks, 600),
    "html": (html, 80),
}

SETTINGS = [
    (level, bits, mem_level)
    for level, bits, mem_level in (
        (1, 9, 1),
        (1, 12, 5),
        (3, 12, 5),
        (6, 12, 5),
        (1, 15, 8),
        (6, 15, 8),
        (9, 15, 9),
    )
]


def measure(
    settings: Deflate, bits: int, messages: list[bytes], *, takeover: bool
) -> tuple[float, float]:
    """How many times smaller, and microseconds of CPU for each message."""
    times = []
    size = 0
    for _ in range(ROUNDS):
        deflater = Deflater(settings, bits=bits, takeover=takeover)
        inflater = Inflater(bits=bits, takeover=takeover)
        size = 0
        start = time.process_time()
        for message in messages:
            data = deflater.deflate(message, final=True)
            size += len(data)
            inflater.inflate(data, len(message))
            inflater.finish(0)
        times.append(time.process_time() - start)
    return sum(map(len, messages)) / size, statistics.median(times) / len(messages) * 1e6


def memory(level: int, bits: int, mem_level: int) -> float:
    """KiB that one compressor takes, as the allocator sees it."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    compressors = [zlib.compressobj(level, zlib.DEFLATED, -bits, mem_level) for _ in range(20)]
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / len(compressors) / 1024


def main() -> None:
    rng = random.Random(7)
    traffic = {kind: [make(rng) for _ in range(count)] for kind, (make, count) in KINDS.items()}
    write = sys.stdout.write
    write("| level, window, memory level | takeover | compressor |")
    for kind, messages in traffic.items():
        write(f" {kind}, {sum(map(len, messages)) // len(messages)} bytes |")
    write("\n|---|---|---|---|---|---|\n")
    for level, bits, mem_level in SETTINGS:
        settings = Deflate(level=level, mem_level=mem_level)
        for takeover in (True, False):
            write(f"| {level}, {bits}, {mem_level} | {'yes' if takeover else 'no'} |")
            write(f" {memory(level, bits, mem_level):.0f} KiB |")
            for messages in traffic.values():
                ratio, microseconds = measure(settings, bits, messages, takeover=takeover)
                write(f" {ratio:.1f} × in {microseconds:.0f} µs |")
            write("\n")


if __name__ == "__main__":
    main()
