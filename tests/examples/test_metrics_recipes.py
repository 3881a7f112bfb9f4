"""The recipes for Prometheus and OpenTelemetry."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from examples.recipes import with_metrics, with_opentelemetry
from tests.examples.scripts import PATIENCE
from tests.helpers import HOST
from tests.metrics.metrics_helpers import Samples, serving
from trio_ws import open_broadcast, open_websocket_url
from trio_ws.metrics import open_metrics


async def test_the_page_is_shown_to_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        started, starts = trio.open_memory_channel[Any](1)

        async def serve_elsewhere(handler: Any, host: str, _: int) -> None:
            async with serving(handler) as server:
                started.send_nowait(server)
                await trio.sleep_forever()

        monkeypatch.setattr(with_metrics, "serve_websocket", serve_elsewhere)
        with trio.fail_after(PATIENCE):
            nursery.start_soon(with_metrics.main)
            server = await starts.receive()
            async with open_websocket_url(server.urls[0]) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            async with await trio.open_tcp_stream(HOST, server.port) as stream:
                await stream.send_all(
                    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                answer = b"".join([data async for data in stream])
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert Samples(body)("messages_sent_total") == 1
            nursery.cancel_scope.cancel()


async def test_opentelemetry_observes_every_counter_and_gauge() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    with trio.fail_after(PATIENCE):
        async with (
            open_metrics() as metrics,
            open_broadcast() as broadcast,
            serving(with_opentelemetry.echo) as server,
        ):
            with_opentelemetry.observe_all(metrics, provider.get_meter("trio_ws"))
            async with open_websocket_url(server.urls[0]) as ws:
                for _ in range(3):
                    await ws.send("hello")
                    await ws.receive()
                with broadcast.subscribe(ws, "t"):
                    broadcast.publish("news", "t")
                while True:
                    seen = await trio.to_thread.run_sync(observed, reader)
                    if seen["trio_ws.messages_received", ()] == 4:
                        break
                    await trio.sleep(0.01)
    assert seen["trio_ws.connections", ()] == 1
    assert seen["trio_ws.handshakes", (("status", "101"),)] == 1
    assert seen["trio_ws.broadcast_delivery_seconds_count", ()] == 1
    provider.shutdown()


def observed(reader: InMemoryMetricReader) -> dict[tuple[str, tuple[Any, ...]], float]:
    data = reader.get_metrics_data()
    assert data is not None
    points: Any = [
        (metric.name, point)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    return {(name, tuple(point.attributes.items())): point.value for name, point in points}
