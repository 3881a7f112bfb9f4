"""The table of all metrics, from the code, for docs/how-to/metrics.md."""

from __future__ import annotations

from trio_ws._metering import METRICS, Kind, Metric


def metrics_table() -> str:
    rows = ["| metric | kind | labels | what it tells |", "|---|---|---|---|"]
    rows += [_row(metric) for metric in METRICS]
    return "\n".join(rows) + "\n"


def _row(metric: Metric) -> str:
    name = metric.name + ("_total" if metric.kind is Kind.COUNTER else "")
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{name}` | {metric.kind.value} | {labels} | {metric.what} |"
