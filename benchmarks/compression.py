"""What permessage-deflate's settings cost and give, on six kinds of messages.

    python benchmarks/compression.py

For each: how many times smaller the messages become, CPU time for each message (compressing and
inflating), and the memory of one compressor, before and after its first large messages. Prints a
table in Markdown. The messages are made up, with a fixed seed, in the likeness of the real thing.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trio_ws import Deflate
from trio_ws._protocol.compressors import Z_SYNC_FLUSH, Parameters, take_compressor
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


def html(rng: random.Random) -> bytes:
    """A page or a part of one, about 20 KB."""
    rows = "".join(
        f'<tr class="row"><td class="name">{rng.choice(WORDS)}</td>'
        f'<td class="value">{rng.randint(0, 10_000)}</td>'
        f"<td>{' '.join(rng.choice(WORDS) for _ in range(12))}</td></tr>\n"
        for _ in range(130)
    )
    return f"<!DOCTYPE html><html><body><table>{rows}</table></body></html>".encode()


def rows(size: int) -> Callable[[random.Random], bytes]:
    """JSON of that many bytes."""

    def make(rng: random.Random) -> bytes:
        made = [
            {
                "id": rng.randint(1, 10**6),
                "name": f"sensor-{rng.randint(1, 40)}",
                "value": round(rng.random(), 4),
                "ok": rng.random() < 0.5,
            }
            for _ in range(size // 60 + 1)
        ]
        return json.dumps(made).encode()[:size]

    return make


def log(rng: random.Random) -> bytes:
    """Fifty lines of an access log."""
    return "".join(
        f"2026-11-28 08:{rng.randint(10, 59)}:{rng.randint(10, 59)}.{rng.randint(100, 999)} INFO "
        f"[worker-{rng.randint(1, 8)}] GET /api/v1/{rng.choice(WORDS)}/{rng.randint(1, 99999)} "
        f"{rng.choice((200, 200, 200, 304, 404))} in {rng.randint(1, 300)} ms\n"
        for _ in range(50)
    ).encode()


KINDS: dict[str, tuple[Callable[[random.Random], bytes], int]] = {
    "chat": (chat, 2000),
    "JSON": (rows(300), 2000),
    "JSON ": (rows(1024), 1500),
    "JSON  ": (rows(10 * 1024), 200),
    "log": (log, 300),
    "HTML": (html, 100),
}

#: What compresses, level, window, memory level.
SETTINGS = (
    ("zlib", 1, 12, 5),
    ("zlib", 3, 12, 5),
    ("ISA-L", 3, 12, 5),
    ("zlib", 6, 12, 5),
    ("zlib", 1, 9, 1),
    ("zlib", 3, 15, 8),
    ("ISA-L", 3, 15, 8),
    ("zlib", 6, 15, 8),
    ("zlib", 9, 15, 9),
)

#: How many compressors are made to see what one takes.
MANY = 500


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
            inflater.inflate_whole(data, len(message))
        times.append(time.process_time() - start)
    return sum(map(len, messages)) / size, statistics.median(times) / len(messages) * 1e6


def memory(parameters: Parameters, *messages: bytes) -> list[float]:
    """KiB that one compressor keeps after each message, as the system sees it (Linux)."""
    before = resident()
    compressors = [take_compressor(parameters) for _ in range(MANY)]
    kept = []
    for message in messages:
        for compressor in compressors:
            compressor.compress(message)
            compressor.flush(Z_SYNC_FLUSH)
        kept.append((resident() - before) / MANY)
    return kept


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def row(engine: str, level: int, bits: int, mem_level: int) -> str:
    """Two lines of the table."""
    if engine == "zlib":
        sys.modules["isal"] = None  # type: ignore[assignment] # which makes its import fail
    rng = random.Random(7)
    traffic = [[make(rng) for _ in range(count)] for make, count in KINDS.values()]
    small, large = memory((level, bits, mem_level), traffic[2][0], traffic[5][0] * 3)
    settings = Deflate(level=level, mem_level=mem_level)
    lines = ""
    for takeover in (True, False):
        lines += f"| {engine}, {level}, {bits}, {mem_level} | {'yes' if takeover else 'no'} "
        lines += f"| {small:.0f} to {large:.0f} KiB "
        for messages in traffic:
            ratio, microseconds = measure(settings, bits, messages, takeover=takeover)
            lines += f"| {ratio:.1f} × in {microseconds:.0f} µs "
        lines += "|\n"
    return lines


def main() -> None:
    if len(sys.argv) > 1:
        sys.stdout.write(row(sys.argv[1], *map(int, sys.argv[2:])))
        return
    rng = random.Random(7)
    sys.stdout.write("| level, window, memory level | takeover | compressor |")
    for kind, (make, _) in KINDS.items():
        size = statistics.mean(len(make(rng)) for _ in range(50))
        sys.stdout.write(f" {kind.strip()}, {size:.0f} B |")
    sys.stdout.write("\n|---|---|---|---|---|---|---|---|---|\n")
    sys.stdout.flush()
    for settings in SETTINGS:
        # In a process of its own: what was freed would be taken again, and not be seen.
        subprocess.run([sys.executable, __file__, *map(str, settings)], check=True)


if __name__ == "__main__":
    main()
