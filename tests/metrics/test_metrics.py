"""What metrics count, and that the sums are those of a counted workload."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry, generate_latest

import trio_ws.metrics
from tests.helpers import HOST, echo
from tests.metrics.metrics_helpers import Samples, samples_of, serving, until
from tests.server.server_helpers import connect, memory_server
from trio_ws import (
    ConnectionLost,
    ConnectionRejected,
    Disconnect,
    DropNewest,
    DropOldest,
    Latest,
    Request,
    Response,
    Router,
    SlowReaderPolicy,
    WebSocket,
    open_broadcast,
    open_websocket_url,
)
from trio_ws._metering import CLOSED, HANDSHAKES, METRICS, Kind, code_label, status_label
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.metrics import open_metrics
from trio_ws.metrics._metrics import measuring as open_metrics_of_a_worker
from trio_ws.testing import FaultyStream

Handle = Callable[[WebSocket], Awaitable[None]]


# ---------------------------------------------------------------------------
# Connections
# ---------------------------------------------------------------------------


async def test_messages_and_bytes_are_counted_as_long_as_a_connection_lives_and_after_it() -> None:
    async with open_metrics() as metrics, serving(echo) as server:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(open_websocket_url(server.urls[0]))
                for _ in range(3)
            ]
            for client in clients:
                for number in range(5):
                    await client.send(str(number))
                    await client.receive()
            alive = await samples_of(metrics)
            sent = sum(client.statistics().bytes_sent for client in clients)
            received = sum(client.statistics().bytes_received for client in clients)
        over = await until(metrics, lambda samples: samples("connections") == 0)
    for samples in alive, over:
        assert samples("messages_received_total") == samples("messages_sent_total") == 15
        assert samples("connections_opened_total") == 3
        assert samples.labelled("handshakes_total") == {("101",): 3}
    assert alive("connections") == 3
    assert (alive("received_bytes_total"), alive("sent_bytes_total")) == (sent, received)
    assert over("received_bytes_total") == sent + 3 * 8  # a masked Close frame with a code
    assert over("sent_bytes_total") == received + 3 * 4
    assert over.labelled("connections_closed_total") == {("peer", "1000"): 3}
    assert over("handler_seconds_count") == 3
    assert (await samples_of(metrics)).counted == over.counted  # and after the server's end


async def test_the_end_of_a_connection_is_counted_by_its_code_and_who_began_it() -> None:
    async def handler(ws: WebSocket) -> None:
        if ws.request.path == "/we":
            await ws.aclose(4321)
        elif ws.request.path == "/fail":
            raise ValueError
        await ws.wait_closed()

    async with open_metrics() as metrics, serving(handler) as server:
        for path, code in {"we": 1000, "fail": 1000, "": 1000, "other": 3001}.items():
            async with open_websocket_url(server.urls[0] + path) as ws:
                if path in ("we", "fail"):
                    await ws.wait_closed()
                await ws.aclose(code)
        stream = await trio.open_tcp_stream(HOST, server.port)
        async with trio_ws.wrap_client_stream(stream, server.urls[0]) as ws:
            await stream.aclose()
        samples = await until(metrics, lambda samples: samples("connections") == 0)
    assert samples.labelled("connections_closed_total") == {
        ("us", "4xxx"): 1,
        ("us", "1011"): 1,
        ("peer", "1000"): 1,
        ("peer", "3xxx"): 1,
        ("peer", "1006"): 1,
    }
    assert samples("handler_errors_total") == 1


async def test_handshakes_are_counted_by_the_status_of_their_answer() -> None:
    def decide(request: Request) -> Response | None:
        if request.path.startswith("/status"):
            return Response(int(request.path.removeprefix("/status")))
        return None

    async with open_metrics() as metrics:
        async with serving(echo, process_request=decide, max_connections=1) as server:
            for status in 401, 402, 429, 503:
                with pytest.raises(ConnectionRejected):
                    async with open_websocket_url(f"{server.urls[0]}status{status}"):
                        pass
            async with open_websocket_url(server.urls[0]):
                with pytest.raises(ConnectionRejected):
                    async with open_websocket_url(server.urls[0]):
                        pass
            await until(metrics, lambda samples: samples("connections") == 0)
            for request in b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"":
                async with await trio.open_tcp_stream(HOST, server.port) as stream:
                    if request:
                        await stream.send_all(request)
                        await stream.receive_some()
                total = 7 if b"nonsense" in request else 8 if request else 9
                samples = await until(
                    metrics,
                    lambda samples: sum(samples.labelled("handshakes_total").values()) == total,  # noqa: B023 - called in this round
                )
            assert samples("handshakes_open") == 0
            assert server.statistics().refused_total == 8
    assert samples.labelled("handshakes_total") == {
        ("101",): 1,
        ("401",): 1,
        ("4xx",): 1,
        ("429",): 1,
        ("503",): 2,
        ("400",): 1,
        ("426",): 1,
        ("none",): 1,
    }


async def test_pages_are_no_handshakes_and_a_refused_handshake_on_their_connection_is_one() -> None:
    router = Router()
    router.websocket("/chat")(echo)
    async with open_metrics() as metrics:
        router.get("/metrics")(metrics.page)
        async with serving(router) as server:
            async with await trio.open_tcp_stream(HOST, server.port) as stream:
                page = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await stream.send_all(page)
                answer = bytearray()
                while b"trio_ws_backplane_gaps_total" not in answer or answer[-1:] != b"\n":
                    answer += await stream.receive_some()
                head, _, body = bytes(answer).partition(b"\r\n\r\n")
                assert b"Content-Type: text/plain; version=" in head
                own = Samples(body)
                assert own("http_requests_total") == own("http_connections") == 1
                assert own.labelled("handshakes_total") == {}
            with pytest.raises(ConnectionRejected):
                async with open_websocket_url(f"{server.urls[0]}no"):
                    pass
            samples = await until(
                metrics, lambda samples: bool(samples.labelled("handshakes_total"))
            )
    assert samples.labelled("handshakes_total") == {("404",): 1}


@pytest.mark.parametrize(
    ("status", "label"), [(0, "none"), (101, "101"), (402, "4xx"), (207, "2xx"), (999, "other")]
)
def test_the_statuses_are_few(status: int, label: str) -> None:
    assert status_label(status) == label
    assert (label,) in HANDSHAKES.places


def test_the_close_codes_are_few() -> None:
    labels = {code: code_label(code) for code in (1000, 1004, 1016, 2999, 3000, 4999, 5000)}
    assert [*labels.values()] == ["1000", "other", "other", "other", "3xxx", "4xxx", "other"]
    assert {label for label, _ in CLOSED.places} >= {*labels.values()}


async def test_what_waits_is_shown_and_what_is_dropped_unsent_does_not_count_as_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(ws: WebSocket) -> None:
        with broadcast.subscribe(ws, "all"):
            await ws.receive()
            stream.stall_sends()
            await ws.send(bytes(100))  # the stream has this, and does not pass it on
            await ws.send(bytes(100))
            broadcast.publish(bytes(100), "all")
            await ws.wait_closed()

    async with (
        open_metrics() as metrics,
        open_broadcast() as broadcast,
        memory_server(handler, compression=None, ping_interval=1000) as (_, listener, _),
    ):
        client, server = trio.testing.memory_stream_pair()
        stream = FaultyStream(server)
        await listener.deliver(stream)
        async with connect(listener, client, compression=None) as ws:
            for message in ("go", "wait", "wait!"):
                await ws.send(message)
            await trio.sleep(1)
            waiting = await samples_of(metrics)
        over = await until(metrics, lambda samples: samples("connections") == 0)
    assert waiting("receive_queue_messages") == 2
    assert waiting("receive_queue_bytes") > 9
    assert waiting("backlogged_connections") == 1
    assert waiting("send_queue_bytes") == 3 * 102
    assert waiting("broadcast_queue_messages") == 1
    assert waiting("messages_sent_total") == over("messages_sent_total") == 2
    assert waiting("sent_bytes_total") == over("sent_bytes_total") == 0
    for name in ("receive_queue_bytes", "backlogged_connections", "send_queue_bytes"):
        assert over(name) == 0


async def test_the_time_that_send_waits_is_measured_also_where_it_waits_in_vain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.receive()
        await ws.send(bytes(10))
        with trio.move_on_after(3):
            await ws.send(bytes(10))
        await ws.send(bytes(10))
        await ws.receive()

    async with (
        open_metrics() as metrics,
        memory_server(handler, compression=None, max_send_buffer=1, ping_interval=1000) as (
            _,
            listener,
            _,
        ),
    ):
        client, server = trio.testing.memory_stream_pair()
        stream = FaultyStream(server)
        await listener.deliver(stream)
        async with connect(listener, client, compression=None) as ws:
            stream.stall_sends()
            await ws.send("go")
            await trio.sleep(3.8)
            stream.go_on()
            await ws.receive()
            await ws.receive()
            samples = await samples_of(metrics)
    assert samples("send_wait_seconds_count") == 2
    assert samples("send_wait_seconds_sum") == pytest.approx(3.8)
    assert samples("send_wait_seconds_bucket", le="2.5") == 1
    assert samples("send_wait_seconds_bucket", le="1.0") == 1
    assert samples("send_wait_seconds_bucket", le="0.5") == 0


async def test_the_round_trip_of_each_answered_ping_is_measured(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.ping()
        await ws.ping()
        await ws.receive()

    async with open_metrics() as metrics, memory_server(handler) as (_, listener, _):
        client, server = trio.testing.memory_stream_pair()
        await listener.deliver(FaultyStream(server, delay=1.5))
        async with connect(listener, client) as ws:
            samples = await until(
                metrics, lambda samples: samples("ping_round_trip_seconds_count") == 2
            )
            await ws.send("thanks")
    assert samples("ping_round_trip_seconds_sum") >= 3
    assert samples("ping_round_trip_seconds_bucket", le="1.0") == 0


async def test_a_busy_event_loop_is_late() -> None:
    async with open_metrics() as metrics:
        await until(metrics, lambda samples: samples("event_loop_lag_seconds_count") >= 1)
        before = await samples_of(metrics)
        deadline = trio.current_time() + 0.3
        while trio.current_time() < deadline:
            pass
        after = await until(
            metrics,
            lambda samples: (
                samples("event_loop_lag_seconds_count") > before("event_loop_lag_seconds_count")
            ),
        )
    assert after("event_loop_lag_seconds_bucket", le="0.1") < after("event_loop_lag_seconds_count")


# ---------------------------------------------------------------------------
# Broadcasts
# ---------------------------------------------------------------------------


async def test_a_broadcast_is_counted_and_so_is_one_that_is_over() -> None:
    async with open_metrics() as metrics:
        async with open_broadcast() as broadcast:

            async def handler(ws: WebSocket) -> None:
                with broadcast.subscribe(ws, "a", "b"):
                    await ws.wait_closed()

            async with serving(handler) as server:
                async with (
                    open_websocket_url(server.urls[0]) as one,
                    open_websocket_url(server.urls[0]) as other,
                ):
                    while len(broadcast) < 2:
                        await trio.sleep(0.01)
                    for _ in range(10):
                        assert broadcast.publish("news", "a") == 2
                    broadcast.publish("nobody", "c")
                    for ws in one, other:
                        for _ in range(10):
                            await ws.receive()
                    alive = await samples_of(metrics)
        over = await samples_of(metrics)
    for samples in alive, over:
        assert samples("broadcast_published_total") == 11
        assert samples("broadcast_delivered_total") == samples("messages_sent_total") == 20
        assert samples("broadcast_delivery_seconds_count") == 20
    assert (alive("broadcast_subscribers"), alive("broadcast_topics")) == (2, 2)
    assert (over("broadcast_subscribers"), over("broadcast_topics")) == (0, 0)


POLICIES: dict[str, tuple[SlowReaderPolicy, dict[str, Any]]] = {
    "drop_oldest": (DropOldest(), {"dropped": {("drop_oldest",): 3}}),
    "drop_newest": (DropNewest(), {"dropped": {("drop_newest",): 3}}),
    "latest": (Latest(), {"replaced": {(): 4}}),
    "latest_with_keys": (Latest(key=lambda message: message), {"dropped": {("latest",): 3}}),
    "disconnect": (Disconnect(), {"disconnected": {(): 1}}),
}


@pytest.mark.parametrize(("policy", "lost"), POLICIES.values(), ids=POLICIES)
async def test_what_a_slow_reader_loses_is_counted_by_policy(
    policy: SlowReaderPolicy, lost: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    async with (
        open_metrics() as metrics,
        open_broadcast(policy=policy, max_queued_messages=2) as it,
    ):

        async def handler(ws: WebSocket) -> None:
            with it.subscribe(ws, "t"):
                subscribed.set()
                await ws.wait_closed()

        subscribed = trio.Event()
        async with memory_server(handler, compression=None) as (_, listener, _):
            client, server = trio.testing.memory_stream_pair()
            stream = FaultyStream(server)
            await listener.deliver(stream)
            async with connect(listener, client, compression=None) as ws:
                await subscribed.wait()
                stream.stall_sends()
                it.publish("taken by the stream", "t")
                for number in range(5):
                    it.publish(str(number), "t")
                await trio.sleep(2)
                samples = await samples_of(metrics)
                for name in "dropped", "replaced", "disconnected":
                    assert samples.labelled(f"broadcast_{name}_total") == lost.get(name, {})
                waiting = 0 if isinstance(policy, Disconnect) else 1 if "replaced" in lost else 2
                assert samples("broadcast_queue_messages") == waiting
                assert samples("broadcast_delivery_seconds_count") == 1
                stream.go_on()
                with trio.move_on_after(1), suppress(ConnectionLost):
                    async for _ in ws:
                        pass
                samples = await samples_of(metrics)
    assert samples("broadcast_delivery_seconds_count") == 1 + waiting
    assert samples("broadcast_delivery_seconds_sum") == 2 * waiting
    assert samples("broadcast_delivery_seconds_bucket", le="1.0") == 1
    assert samples("broadcast_queue_messages") == 0


async def test_a_history_is_not_late_and_a_key_that_publishes_takes_no_times_away() -> None:
    def publishing(message: str | bytes) -> str:
        if message == "outer":
            for _ in range(3):
                broadcast.publish("inner", "t", keep=False)
        return "one"

    async with (
        open_metrics() as metrics,
        open_broadcast(history=2, policy=Latest(key=publishing)) as broadcast,
    ):
        for _ in range(2):
            broadcast.publish("old", "t")
        async with broadcast.open_channel("t") as channel:
            await channel.receive()
            before = await samples_of(metrics)
            broadcast.publish("outer", "t")
            samples = await samples_of(metrics)
            assert samples("broadcast_delivered_total") == 4
            for key, value in before.counted.items():
                assert samples.counted[key] >= value
            assert samples("broadcast_delivery_seconds_count") == 0
            for _ in range(2):
                await channel.receive()
            samples = await samples_of(metrics)
            assert samples("broadcast_delivery_seconds_count") == 1


async def test_a_backplane_is_counted_with_its_broadcast() -> None:
    hub = MemoryHub()
    backplanes = [MemoryBackplane(hub), MemoryBackplane(hub)]
    async with (
        open_metrics() as metrics,
        open_broadcast(backplane=backplanes[0]) as here,
        open_broadcast(backplane=backplanes[1]) as there,
        there.open_channel("t") as channel,
    ):
        here.publish("news", "t")
        await channel.receive()
        for backplane in backplanes:
            await backplane.flush()
        samples = await samples_of(metrics)
        statistics = [backplane.statistics() for backplane in backplanes]
    assert samples("backplanes") == samples("backplanes_connected") == 2
    assert samples("backplane_sent_total") == sum(each.sent for each in statistics) > 0
    assert samples("backplane_received_total") == sum(each.delivered for each in statistics) > 0
    assert samples("broadcast_published_total") == 2
    assert samples.labelled("backplane_lost_total") == {}


# ---------------------------------------------------------------------------
# Getting at them
# ---------------------------------------------------------------------------


async def test_a_registry_shows_them_from_any_thread_beside_other_metrics() -> None:
    registry = CollectorRegistry(auto_describe=True)
    async with open_metrics() as metrics, serving(echo) as server:
        registry.register(metrics.collector)
        async with open_websocket_url(server.urls[0]) as ws:
            await ws.send("hello")
            await ws.receive()
            with trio.fail_after(60):
                while True:
                    page = await trio.to_thread.run_sync(generate_latest, registry)
                    if Samples(page)("messages_sent_total"):
                        break
                    await trio.sleep(0.01)
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(metrics.collector)
    page = generate_latest(registry)
    assert Samples(page)("connections_closed_total", code="1000", by="peer") == 1


async def test_metrics_are_on_once_for_all_that_is_opened_meanwhile() -> None:
    async with serving(echo) as before, open_metrics() as metrics:
        assert repr(metrics) == "<Metrics on>"
        with pytest.raises(RuntimeError, match="^metrics are on already: one open_metrics"):
            async with open_metrics():
                pass
        async with open_websocket_url(before.urls[0]):
            samples = await samples_of(metrics)
            assert samples("connections") == samples("connections_opened_total") == 0
    assert repr(metrics) == "<Metrics off>"
    async with open_metrics() as again:
        assert repr(again) == "<Metrics on>"


async def test_without_prometheus_client_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "trio_ws.metrics._prometheus", raising=False)
    monkeypatch.delattr(trio_ws.metrics, "_prometheus", raising=False)
    with pytest.raises(ImportError, match=r'pip install "trio-ws\[metrics\]"'):
        async with open_metrics():
            pass
    async with open_metrics_of_a_worker(None):  # which shows none
        pass


async def test_counters_never_fall_while_connections_come_and_go_between_the_steps() -> None:
    async def handler(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async def come_and_go(url: str) -> None:
        while True:
            async with open_websocket_url(url) as ws:
                for _ in range(3):
                    await ws.send("hello")
                    await ws.receive()

    async with open_metrics() as metrics, serving(handler) as server:
        async with AsyncExitStack() as stack:
            for _ in range(150):
                await stack.enter_async_context(open_websocket_url(server.urls[0]))
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(come_and_go, server.urls[0])
                before: dict[Any, float] = {}
                for _ in range(30):
                    counted = (await samples_of(metrics)).counted
                    assert all(counted[key] >= value for key, value in before.items())
                    before = counted
                nursery.cancel_scope.cancel()


def test_every_metric_is_named_and_explained_as_prometheus_wants_it() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("trio_ws_")
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert metric.what.endswith(".")
        assert metric.what.isascii()
        assert metric.name.endswith("_seconds") == (metric.kind is Kind.HISTOGRAM)
        assert (
            metric.name.endswith("_bytes") == ("in bytes" in metric.what) or "Bytes" in metric.what
        )
