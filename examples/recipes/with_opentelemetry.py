"""An echo server that hands its numbers to OpenTelemetry. Configure the SDK before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio
from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
from prometheus_client.core import Metric

from trio_ws import WebSocket, serve_websocket
from trio_ws.metrics import Metrics, open_metrics


def observe_all(metrics: Metrics, meter: Meter) -> None:
    """Make an observable instrument of every counter and gauge.

    An instrument is asked in a thread of the SDK's, as often as its reader wants. OpenTelemetry has
    no observable histograms: of each, their count and their sum become counters.
    """

    def observer(family: str, suffix: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for metric in metrics.collector.collect():
                if metric.name == family:
                    for sample in metric.samples:
                        if sample.name == family + suffix:
                            yield Observation(sample.value, dict(sample.labels))

        return observe

    for metric in metrics.collector.collect():
        name = metric.name.removeprefix("trio_ws_")
        if metric.type == "gauge":
            meter.create_observable_up_down_counter(
                f"trio_ws.{name}", [observer(metric.name, "")], description=metric.documentation
            )
        else:
            for suffix in suffixes(metric):
                meter.create_observable_counter(
                    f"trio_ws.{name}{suffix.removesuffix('_total')}",
                    [observer(metric.name, suffix)],
                    description=metric.documentation,
                )


def suffixes(metric: Metric) -> list[str]:
    return ["_count", "_sum"] if metric.type == "histogram" else ["_total"]


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with open_metrics() as metrics:
        observe_all(metrics, get_meter("trio_ws"))
        await serve_websocket(echo, "localhost", 8765)


if __name__ == "__main__":
    trio.run(main)
