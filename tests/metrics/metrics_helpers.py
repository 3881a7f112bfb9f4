"""What a page of metrics says, as Prometheus' own parser reads it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers import HOST, PATIENCE
from trio_ws import Headers, Request, WebSocketServer, serve_websocket
from trio_ws.metrics import Metrics


class Samples:
    """The samples of a page, by name and labels."""

    def __init__(self, page: bytes) -> None:
        self.families = {each.name: each for each in text_string_to_metric_families(page.decode())}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for each in self.families.values()
            for sample in each.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._values[f"trio_ws_{name}", frozenset(labels.items())]

    def labelled(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a name that are not 0, by the values of their labels."""
        return {
            tuple(value for _, value in sorted(labels)): number
            for (other, labels), number in self._values.items()
            if other == f"trio_ws_{name}" and number
        }

    @property
    def counted(self) -> dict[Any, float]:
        """All that may never become less, and stays the same where nothing happens."""
        return {
            key: value
            for key, value in self._values.items()
            if key[0].endswith(("_total", "_bucket", "_count", "_sum"))
            and not key[0].startswith("trio_ws_event_loop_lag")
        }


async def samples_of(metrics: Metrics) -> Samples:
    response = await metrics.page(Request("GET", "/metrics", Headers()))
    assert response.status == 200
    return Samples(response.body)


async def until(metrics: Metrics, found: Callable[[Samples], bool]) -> Samples:
    """The first samples that are as they should be."""
    with trio.fail_after(PATIENCE):
        while not found(samples := await samples_of(metrics)):
            await trio.sleep(0.01)
    return samples


@asynccontextmanager
async def serving(handler: Any, **options: Any) -> AsyncGenerator[WebSocketServer, None]:
    """A server on a port of its own, and its end."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, handler, HOST, 0, **options)
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()
