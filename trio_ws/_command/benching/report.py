"""What a load has found out, as text for people and as JSON for programs.

This module owns words and units, and when a number is not the server's.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

from ..._redaction import masked
from .histogram import Histogram
from .load import Load
from .plan import Mode, Plan

PERCENTILES: Final = {"p50": 50, "p90": 90, "p99": 99, "p99.9": 99.9}

#: From this part of a processor on, the program that makes the load may be what limits it.
_BUSY: Final = 0.9

#: The load is late if one message in a hundred was sent so many seconds late, and that is so large
#: a part of what one answer in a hundred took.
_LATE: Final = 0.001
_LATE_PART: Final = 0.5

#: How many reasons for failures are told. More of them would hide the numbers.
_MOST_REASONS: Final = 10


def warnings(load: Load) -> list[str]:
    """Why the numbers may say little about the server. A sentence for each reason."""
    tally, found = load.tally, list[str]()
    if tally.seconds and tally.processor >= _BUSY * tally.seconds:
        found.append(
            f"This program was busy {tally.processor / tally.seconds:.0%} of the time. It may have "
            "been the limit, and not the server: use fewer messages, or run it several times at "
            "once."
        )
    late = tally.lag.percentile(99)
    if late >= _LATE and late >= _LATE_PART * tally.latency.percentile(99):
        found.append(
            f"This program sent late: one message in a hundred by {_time(late)} or more. The "
            "latencies have that in them, and it is not the server's doing."
        )
    if load.plan.mode is Mode.ECHO and tally.strays and not tally.latency.count:
        found.append(
            "Messages came, and none was the echo of one that was sent. If that is right for this "
            "server, use --no-reply or --receive-only."
        )
    return found


# ---------------------------------------------------------------------------
# JSON
# ---------------------------------------------------------------------------


def as_json(url: str, load: Load) -> str:
    """One line. Times are in seconds, sizes in bytes of messages; what is not known is null."""
    plan, tally = load.plan, load.tally
    return json.dumps(
        {
            "url": masked(url),
            "plan": {
                "mode": plan.mode.value,
                "connections": plan.connections,
                "rate": plan.rate,
                "in_flight": plan.in_flight if _is_closed_loop(plan) else None,
                "seconds": plan.seconds,
                "warmup_seconds": plan.warmup,
                "size": plan.size,
                "binary": plan.binary,
            },
            "interrupted": load.interrupted,
            "seconds": tally.seconds,
            "connections": {
                "opened": load.opened,
                "compressed": load.compressed,
                "failed": _counts(tally.refused),
                "lost": _counts(tally.lost),
            },
            "messages": {
                "due": tally.due,
                "answered": tally.latency.count if plan.mode is Mode.ECHO else None,
                "unanswered": tally.unanswered if plan.mode is Mode.ECHO else None,
                "unsent": tally.unsent,
                "strays": tally.strays,
            },
            "per_second": {
                "sent": _rate(tally.sent, load),
                "received": _rate(tally.received, load),
                "bytes_sent": _rate(tally.sent_bytes, load),
                "bytes_received": _rate(tally.received_bytes, load),
            },
            "opening_seconds": _figures(tally.opening),
            "latency_seconds": _figures(tally.latency),
            "client": {
                "processor": _rate(tally.processor, load),
                "lag_seconds": _figures(tally.lag),
            },
            "warnings": warnings(load),
        }
    )


def _is_closed_loop(plan: Plan) -> bool:
    return plan.rate is None and plan.mode is Mode.ECHO


def _counts(reasons: Counter[str]) -> dict[str, int]:
    return dict(reasons.most_common())


def _rate(number: float, load: Load) -> float | None:
    seconds = load.tally.seconds
    return number / seconds if seconds else None


def _figures(times: Histogram) -> dict[str, float] | None:
    if not times.count:
        return None
    named = {name: times.percentile(percent) for name, percent in PERCENTILES.items()}
    return {**named, "max": times.longest}


# ---------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------


def as_text(url: str, load: Load) -> str:
    """Several lines, with the end of the last one."""
    plan, tally = load.plan, load.tally
    rows = [
        ("connections", _connections(load)),
        ("opening", _percentiles(tally.opening)),
        ("messages", _messages(load)),
        ("sent", _throughput(tally.sent, tally.sent_bytes, load)),
        ("received", _throughput(tally.received, tally.received_bytes, load)),
        ("latency", _percentiles(tally.latency)),
        ("sent late by", _percentiles(tally.lag) if plan.rate is not None else ""),
        ("this program", _busy(load)),
    ]
    lines = [f"{masked(url)}: {_plan(plan)}", ""]
    if load.interrupted:
        lines[1:1] = [f"Interrupted. {tally.seconds:.3g} of {plan.seconds:g} s were measured."]
    lines += [f"{name:<13} {what}" for name, what in rows if what]
    for what, reasons in (("failed", tally.refused), ("lost", tally.lost)):
        lines += ["", *_reasons(what, reasons)] if reasons else []
    for warning in warnings(load):
        lines += ["", warning]
    return "\n".join(lines) + "\n"


def _plan(plan: Plan) -> str:
    connections = _plural(plan.connections, "connection")
    if plan.mode is Mode.RECEIVE:
        return f"{connections}, nothing sent, {plan.seconds:g} s"
    if plan.rate is None:
        what = f"{_plural(plan.in_flight, 'message')} under way on each"
    else:
        what = f"{_plural(plan.rate, 'message')} a second in all"
    kind = "binary" if plan.binary else "text"
    return f"{connections}, {what}, {plan.size:,} bytes of {kind} each, {plan.seconds:g} s"


def _connections(load: Load) -> str:
    tally = load.tally
    text = f"{load.opened:,} opened, {tally.refused.total():,} failed, {tally.lost.total():,} lost"
    return text + (f"; {load.compressed:,} with compression" if load.compressed else "")


def _messages(load: Load) -> str:
    plan, tally = load.plan, load.tally
    if not load.opened:
        return ""
    if plan.mode is Mode.RECEIVE:
        return f"{tally.received:,} received"
    text = f"{tally.due:,} due"
    if plan.mode is Mode.ECHO:
        text += f", {tally.latency.count:,} answered, {tally.unanswered:,} without an answer"
    if tally.unsent:
        text += f"; {tally.unsent:,} never sent, because their connections did not take them"
    if tally.strays:
        text += f"; {tally.strays:,} came that answer none"
    return text


def _throughput(messages: int, size: int, load: Load) -> str:
    if not messages:
        return ""
    seconds = load.tally.seconds
    return f"{messages / seconds:,.1f} messages a second, {_size(size / seconds)} a second"


def _busy(load: Load) -> str:
    part = _rate(load.tally.processor, load)
    return "" if part is None else f"busy {part:.0%} of the time"


def _percentiles(times: Histogram) -> str:
    figures = _figures(times) or {}
    return "  ".join(f"{name} {_time(seconds):<8}" for name, seconds in figures.items()).rstrip()


def _reasons(what: str, reasons: Counter[str]) -> list[str]:
    shown = reasons.most_common(_MOST_REASONS)
    lines = [f"{number:,} {what}: {reason}" for reason, number in shown]
    rest = reasons.total() - sum(number for _, number in shown)
    return [*lines, f"{rest:,} {what} for other reasons"] if rest else lines


def _plural(number: float, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{_in_short(size)} {unit}"
        size /= 1000
    return f"{_in_short(size)} GB"


def _time(seconds: float) -> str:
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{_in_short(seconds * factor)} {unit}"
    return f"{_in_short(seconds)} s"


def _in_short(number: float) -> str:
    """With three digits that mean something, and without an exponent."""
    return f"{number:.3g}" if number < 99.95 else f"{number:,.0f}"
