"""The server's side of the live protocol: what a client asks for, and what it is answered."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import (
    ConnectionLost,
    ConnectionRejected,
    Router,
    WebSocket,
    serve_websocket,
)
from trio_ws.backplane import MemoryBackplane, MemoryHub
from trio_ws.live import Live, Refused, open_live
from trio_ws.testing import MemoryApp, open_test_app, open_test_websocket

pytestmark = pytest.mark.autojump

V1 = "trio-ws.live.v1"


class Client:
    """One that knows the protocol and nothing else."""

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    async def say(self, type_: str, **fields: object) -> None:
        await self.ws.send_json({"type": type_, **fields})

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = await self.ws.receive_json()
        return message

    async def subscribe(self, topic: str, **fields: object) -> list[dict[str, Any]]:
        """Subscribe; what comes up to the end of catching up."""
        await self.say("subscribe", topic=topic, **fields)
        heard = [await self.hear()]
        while heard[-1]["type"] not in ("current", "error"):
            heard.append(await self.hear())
        return heard

    async def hears_nothing(self) -> None:
        await self.say("ping")
        assert await self.hear() == {"type": "pong"}


class App:
    def __init__(self, live: Live, app: MemoryApp) -> None:
        self.live = live
        self._app = app

    @asynccontextmanager
    async def client(self, name: str | None = None) -> AsyncGenerator[Client, None]:
        path = "/live" if name is None else f"/live?name={name}"
        async with self._app.websocket(path, subprotocols=[V1]) as ws:
            yield Client(ws)


@asynccontextmanager
async def serving(**options: Any) -> AsyncGenerator[App, None]:
    with trio.fail_after(600):
        async with open_live(**options) as live:
            router = Router()
            router.websocket("/live")(live)
            async with open_test_app(router) as app:
                yield App(live, app)


def types(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


# Subscribing…


async def test_a_client_gets_what_is_kept_and_then_what_is_published() -> None:
    async with serving() as app, app.client() as client:
        app.live.publish({"n": 1}, "news")
        app.live.publish("elsewhere", "sport")
        begun, first, current = await client.subscribe("news")
        assert begun == {"type": "subscribed", "topic": "news", "recovered": False}
        assert (first["type"], first["data"]) == ("message", {"n": 1})
        assert (current["type"], current["position"]) == ("current", first["position"])
        app.live.publish(None, "news")
        message = await client.hear()
        assert message["data"] is None
        assert message["position"] not in ("", first["position"])
        assert await app.live.publish_wait([2], "news") == 1
        assert (await client.hear())["data"] == [2]


async def test_a_client_that_comes_back_gets_what_it_missed_and_no_more() -> None:
    async with serving() as app, app.client() as other:
        await other.subscribe("news")
        async with app.client() as client:
            *_, current = await client.subscribe("news")
        assert current["position"]  # though nothing was published yet
        for n in range(5):
            app.live.publish(n, "news")
        async with app.client() as client:
            begun, *missed, current = await client.subscribe("news", position=current["position"])
            assert begun["recovered"] is True
            assert [each["data"] for each in missed] == [0, 1, 2, 3, 4]
        async with app.client() as client:
            heard = await client.subscribe("news", position=missed[2]["position"])
            assert [each["data"] for each in heard[1:-1]] == [3, 4]
            assert heard[-1]["position"] == current["position"]


@pytest.mark.parametrize("position", ["", "nonsense", "x" * 10_000, "0123456789ab-1"])
async def test_a_position_that_leads_nowhere_brings_what_is_kept(position: str) -> None:
    async with serving(history=2) as app, app.client() as client:
        for n in range(5):
            app.live.publish(n, "news")
        begun, *kept, _ = await client.subscribe("news", position=position)
        assert begun["recovered"] is False
        assert [each["data"] for each in kept] == [3, 4]


async def test_what_is_not_kept_has_no_position() -> None:
    async with serving() as app, app.client() as client:
        await client.subscribe("news")
        app.live.publish(1, "news", keep=False)
        assert await client.hear() == {"type": "message", "topic": "news", "data": 1}


async def test_a_client_hears_of_a_topic_until_it_unsubscribes() -> None:
    async with serving() as app, app.client() as client:
        for _ in range(2):
            await client.subscribe("news")
            app.live.publish(1, "news", keep=False)
            assert (await client.hear())["data"] == 1
            await client.say("unsubscribe", topic="news")
            await client.say("unsubscribe", topic="news")
            await client.hears_nothing()
            assert app.live.publish(1, "news", keep=False) == 0


async def test_a_topic_is_subscribed_to_once_and_not_too_many_of_them() -> None:
    async with serving(max_topics=2) as app, app.client() as client:
        for topic in "ab":
            await client.subscribe(topic)
        for topic, code in (("a", "subscribed"), ("c", "too_many_topics")):
            (error,) = await client.subscribe(topic)
            assert (error["type"], error["topic"], error["code"]) == ("error", topic, code)
        await client.say("unsubscribe", topic="a")
        assert types(await client.subscribe("c")) == ["subscribed", "current"]
        app.live.publish(1, "b")
        assert (await client.hear())["topic"] == "b"


async def test_names_of_topics_may_be_of_any_script() -> None:
    async with serving() as app, app.client() as client:
        for topic in ("küche", "張", "a\0b", 'a"b\\', "😀" * 256):
            assert (await client.subscribe(topic))[0]["topic"] == topic
            app.live.publish("\ud800", topic, keep=False)
            message = await client.hear()
            assert (message["topic"], message["data"]) == (topic, "\ud800")


async def test_whoever_is_refused_a_name_is_not_subscribed() -> None:
    def who(ws: WebSocket, topic: str) -> str:
        if topic == "closed":
            raise Refused("not you", code="closed")
        return "ada"

    async with serving(identify=who) as app, app.client() as client:
        (error,) = await client.subscribe("closed")
        assert (error["type"], error["code"]) == ("error", "closed")
        assert app.live.publish(1, "closed") == 0
        assert types(await client.subscribe("open")) == ["subscribed", "current"]


async def test_the_application_says_who_may_subscribe() -> None:
    def authorize(ws: WebSocket, topic: str) -> bool:
        if topic == "closed":
            raise Refused("come back tomorrow", code="closed")
        return topic == "open"

    async def later(ws: WebSocket, topic: str) -> bool:
        await trio.sleep(1)
        return authorize(ws, topic)

    for hook in (authorize, later):
        async with serving(authorize=hook) as app, app.client() as client:
            assert types(await client.subscribe("open")) == ["subscribed", "current"]
            (error,) = await client.subscribe("secret")
            assert error["code"] == "forbidden"
            assert await client.subscribe("closed") == [
                {"type": "error", "topic": "closed", "code": "closed"}
                | {"reason": "come back tomorrow"}
            ]
            assert app.live.publish(1, "secret") == 0


async def test_an_answer_of_authorize_that_is_none_lets_nobody_in() -> None:
    with pytest.raises(TypeError, match="authorize returns True or False, not None"):
        async with serving(authorize=lambda ws, topic: None) as app, app.client() as client:
            await client.say("subscribe", topic="news")
            with pytest.raises(ConnectionLost, match="1011"):
                await client.hear()
            assert app.live.broadcast.statistics().topics == 0


# Sending…


async def test_what_a_client_sends_goes_to_the_application_and_is_acknowledged() -> None:
    taken: list[tuple[str, Any]] = []

    def take(ws: WebSocket, topic: str, data: Any) -> None:
        taken.append((topic, data))

    async with serving(on_message=take) as app, app.client() as client:
        await client.subscribe("news")
        await client.say("send", topic="news", id="1", data={"a": [1]})
        assert await client.hear() == {"type": "ack", "id": "1"}
        await client.say("send", topic="news", data=2)
        await client.say("send", topic="news")
        await client.hears_nothing()
        assert taken == [("news", {"a": [1]}), ("news", 2), ("news", None)]


async def test_the_application_may_answer_take_its_time_and_refuse() -> None:
    async def take(ws: WebSocket, topic: str, data: Any) -> Any:
        await trio.sleep(data)
        if not data:
            raise Refused("nothing is too little")
        return {"waited": data}

    async with serving(on_message=take) as app, app.client() as client:
        await client.subscribe("news")
        for name, data in (("1", 2), ("2", 1), ("3", 0), (None, 0)):
            await client.say("send", topic="news", id=name, data=data)
        assert await client.hear() == {"type": "ack", "id": "1", "data": {"waited": 2}}
        assert await client.hear() == {"type": "ack", "id": "2", "data": {"waited": 1}}
        refusal = {"code": "refused", "reason": "nothing is too little"}
        assert await client.hear() == {"type": "error", "id": "3", "topic": "news", **refusal}
        await client.hears_nothing()


async def test_nothing_is_taken_from_a_client_that_has_not_subscribed_or_by_nobody() -> None:
    async with serving() as app, app.client() as client:
        await client.say("send", topic="news", id="1")
        assert (await client.hear())["code"] == "not_subscribed"
        await client.subscribe("news")
        await client.say("send", topic="news", id="2")
        assert (await client.hear())["code"] == "forbidden"
        await client.say("unsubscribe", topic="news")
        await client.say("send", topic="news", id="3")
        await client.say("send", topic="news")
        assert (await client.hear())["code"] == "not_subscribed"
        await client.hears_nothing()


async def test_what_the_application_raises_is_an_error_of_the_handler_and_of_no_other() -> None:
    def take(ws: WebSocket, topic: str, data: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with serving(on_message=take) as app, app.client() as client, app.client() as other:
            for each in (client, other):
                await each.subscribe("news")
            await client.say("send", topic="news", data=1)
            with pytest.raises(ConnectionLost, match="1011"):
                await client.hear()
            assert app.live.publish(1, "news") == 1
            assert (await other.hear())["data"] == 1


# Clients that do not keep to the protocol…


async def test_arrays_and_objects_may_be_a_hundred_inside_each_other() -> None:
    async with serving() as app, app.client() as client:
        await client.ws.send(f'{{"type": "ping", "data": {"[" * 99}{"]" * 99}}}')
        assert (await client.hear())["type"] == "pong"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"{}", "messages are text"),
        ("", "messages are JSON"),
        ('{"type": "ping"', "messages are JSON"),
        ('{"type": "send", "topic": "a", "data": NaN}', "messages are JSON"),
        ("[" * 100_000, "messages are JSON"),
        ("[]", "a message is a JSON object"),
        (f'{{"type": "ping", "data": {"[" * 100}{"]" * 100}}}', "a message has at most 100 levels"),
        (f'{{"type": "ping", "data": {"[" * 101}{"]" * 101}}}', "a message has at most 100 levels"),
        ("{}", "a message has a type"),
        ('{"type": 1}', "a message has a type"),
        ('{"type": "subscribe"}', "a topic is a string of 1 to 256 characters"),
        ('{"type": "subscribe", "topic": ""}', "a topic is a string of 1 to 256 characters"),
        ('{"type": "send", "topic": 1}', "a topic is a string of 1 to 256 characters"),
        ('{"type": "unsubscribe", "topic": "\\ud800"}', "a topic is Unicode"),
        ('{"type": "subscribe", "topic": "\\u0000trio_ws.x"}', "a topic is a string of 1 to 256"),
        (json.dumps({"type": "subscribe", "topic": "x" * 257}), "a topic is a string of 1 to"),
        ('{"type": "subscribe", "topic": "a", "position": 1}', "a position is a string"),
        ('{"type": "send", "topic": "a", "id": 1}', "an id is a string of 1 to 64 characters"),
        ('{"type": "send", "topic": "a", "id": ""}', "an id is a string of 1 to 64 characters"),
        ('{"type": "send", "topic": "a", "id": "\\udfff"}', "an id is a string of 1 to 64"),
    ],
)
async def test_what_is_no_message_ends_the_connection(message: str | bytes, reason: str) -> None:
    async with serving() as app, app.client() as client:
        await client.subscribe("a")
        await client.ws.send(message)
        with pytest.raises(ConnectionLost) as caught:
            await client.hear()
        assert caught.value.reason.code == 1008
        assert caught.value.reason.reason.startswith(reason)
        assert app.live.publish(1, "a") == 0


async def test_what_comes_of_later_versions_is_answered_or_not_looked_at() -> None:
    async with serving() as app, app.client() as client:
        await client.say("wave", id="7", topic="news")
        error = await client.hear()
        assert (error["type"], error["code"], error["id"]) == ("error", "unknown_type", "7")
        heard = await client.subscribe("news", presence="maybe", position=None, weather="fine")
        assert types(heard) == ["subscribed", "current"]


async def test_clients_of_another_protocol_are_refused_and_others_are_told_what_this_is() -> None:
    async with open_live() as live:
        router = Router()
        router.websocket("/live")(live)
        for handler, path in ((router, "/live"), (live, "/")):
            async with open_test_app(handler) as app:
                with pytest.raises(ConnectionRejected) as caught:
                    async with app.websocket(path, subprotocols=["chat"]):
                        raise AssertionError
                assert caught.value.response.status == 400
                assert b"trio-ws.live.v1" in caught.value.response.body
                async with app.websocket(path, subprotocols=["trio-ws.token.abc", V1]) as ws:
                    assert ws.subprotocol == V1
            async with open_test_app(live) as app:
                response = await app.get("/")
                assert response.status == 426


async def test_a_handler_that_calls_it_needs_its_hook() -> None:
    async with open_live() as live:

        async def handler(ws: WebSocket) -> None:
            await live(ws)

        with pytest.raises(RuntimeError, match=r"give before=live\.admit to the route"):
            async with open_test_websocket(handler) as ws:
                await ws.receive()


# Slow clients, and the end…


async def test_a_client_that_is_too_slow_is_sent_away_to_come_back() -> None:
    async with serving(max_queued_messages=5) as app, app.client() as client:
        await client.subscribe("news")
        while app.live.publish("x" * 100_000, "news"):
            pass
        with pytest.raises(ConnectionLost) as caught:
            while True:
                message = await client.hear()
        assert caught.value.reason.code == 1013
        async with app.client() as again:
            begun, *_, last = await again.subscribe("news", position=message["position"])
            assert begun["recovered"] is True
            assert last["type"] == "current"


async def test_leaving_ends_all_subscriptions_once_a_hook_is_through() -> None:
    through: list[str] = []

    async def take(ws: WebSocket, topic: str, data: Any) -> None:
        await trio.sleep(20)
        through.append(data)  # what was sent is done, whoever is there to be told

    async with serving(on_message=take) as app:
        async with app.client() as client:
            for topic in ("news", "sport"):
                await client.subscribe(topic)
            await client.say("send", topic="news", id="1", data="done")
            await trio.testing.wait_all_tasks_blocked()
            assert len(app.live.broadcast) == 1
        await trio.sleep(30)
        assert through == ["done"]
        assert len(app.live.broadcast) == 0
        assert "0 subscribers" in repr(app.live)


@pytest.mark.parametrize(
    "wrong",
    [
        {"authorize": lambda ws: True},
        {"on_message": lambda ws, topic: None},
        {"identify": 1},
        {"state": lambda topic: None},
        {"max_topics": "many"},
        {"history": -1},
    ],
)
async def test_a_mistake_in_the_arguments_is_told_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        async with open_live(**wrong):
            pass


async def test_only_what_json_can_hold_is_published() -> None:
    async with serving() as app:
        with pytest.raises(ValueError, match="JSON has no NaN"):
            app.live.publish(math.nan, "news")
        with pytest.raises(TypeError):
            app.live.publish(b"bytes", "news")
        with pytest.raises(TypeError):
            await app.live.publish_wait({1, 2}, "news")


async def test_it_serves_as_a_handler_of_its_own() -> None:
    async with open_live() as live, trio.open_nursery() as nursery:
        await nursery.start(serve_websocket, live, "localhost", 0)
        nursery.cancel_scope.cancel()


# Who is there…


def who(ws: WebSocket, topic: str) -> Any:
    name = ws.request.query_params.get("name")
    return None if name is None else (name, {"shown": name.title()}) if name != "plain" else name


async def test_clients_are_told_who_is_there_and_who_comes_and_goes() -> None:
    async with serving(identify=who) as app, app.client("ada") as ada:
        heard = await ada.subscribe("news", presence=True)
        assert types(heard) == ["subscribed", "current"]
        everybody = {"type": "presence", "topic": "news", "left": [], "all": True}
        assert await ada.hear() == {**everybody, "joined": {"ada": {"shown": "Ada"}}}
        async with app.client("plain") as plain, app.client() as nobody:
            await plain.subscribe("news")
            came = await ada.hear()
            assert (came["joined"], came["left"]) == ({"plain": None}, [])
            assert "all" not in came
            await nobody.subscribe("news", presence=True)
            seen = await nobody.hear()
            assert seen["joined"] == {"ada": {"shown": "Ada"}, "plain": None}
            await nobody.subscribe("sport", presence=True)
            assert (await nobody.hear())["joined"] == {}
            await plain.say("unsubscribe", topic="news")
            for each in (ada, nobody):
                left = await each.hear()
                assert (left["joined"], left["left"]) == ({}, ["plain"])
            await plain.hears_nothing()
        await ada.say("unsubscribe", topic="news")
        async with app.client("bob") as bob:
            await bob.subscribe("news")
        await ada.hears_nothing()


async def test_nobody_is_told_who_is_there_where_the_application_does_not_say() -> None:
    async with serving() as app, app.client() as client:
        with app.live.broadcast.join("news", "somebody"):
            await client.subscribe("news", presence=True)
            await client.hears_nothing()


# Gaps…


async def test_a_client_is_told_where_messages_are_missing_and_gets_the_state_if_there_is_one() -> (
    None
):
    async def state(topic: str) -> list[str]:
        return [topic, "as it is"]

    for options in ({}, {"state": state}):
        hub = MemoryHub(history=10)
        async with (
            serving(backplane=MemoryBackplane(hub), **options) as app,
            app.client() as client,
            app.client() as elsewhere,
        ):
            await client.subscribe("news")
            await elsewhere.subscribe("sport")
            app.live.publish(1, "news")
            position = (await client.hear())["position"]
            hub.pause()
            hub.lose_data()
            hub.resume()
            assert await client.hear() == {"type": "gap", "topic": "news"}
            if options:
                told = await client.hear()
                assert (told["type"], told["data"]) == ("state", ["news", "as it is"])
            app.live.publish(2, "news")
            assert (await client.hear())["data"] == 2
            async with app.client() as again:
                begun, *_ = await again.subscribe("news", position=position)
                assert begun["recovered"] is False


# The state…


async def test_the_state_comes_instead_of_the_history_and_once_for_all_who_need_it() -> None:
    asked: list[str] = []

    async def state(topic: str) -> Any:
        asked.append(topic)
        await trio.sleep(1)
        return {"all of": topic} if topic == "news" else None

    async with serving(state=state) as app:
        for n in range(3):
            app.live.publish(n, "news")
            app.live.publish(n, "sport")
        async with app.client() as ada, app.client() as bob, trio.open_nursery() as nursery:
            heard: list[list[dict[str, Any]]] = []

            async def subscribe(client: Client) -> None:
                heard.append(await client.subscribe("news"))

            for client in (ada, bob):
                nursery.start_soon(subscribe, client)
            await trio.sleep(0.5)
            app.live.publish("meanwhile", "news")
        assert asked == ["news"]
        for messages in heard:
            assert types(messages) == ["subscribed", "state", "message", "current"]
            begun, told, meanwhile, current = messages
            assert begun["recovered"] is False
            assert told["data"] == {"all of": "news"}
            assert meanwhile["data"] == "meanwhile"
            assert told["position"] != meanwhile["position"] == current["position"]
        async with app.client() as client:
            again = await client.subscribe("news", position=told["position"])
            assert types(again) == ["subscribed", "message", "current"]
            assert asked == ["news"]
            kept = await client.subscribe("sport")  # which has none
            assert [each["data"] for each in kept[1:-1]] == [0, 1, 2]


async def test_a_client_whose_state_cannot_be_had_is_told_to_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def state(topic: str) -> Any:
        raise ZeroDivisionError

    async with serving(state=state) as app, app.client() as client:
        topic = "ü" * 256  # too long for a close reason
        await client.say("subscribe", topic=topic)
        with pytest.raises(ConnectionLost) as caught:
            await client.hear()
        assert (caught.value.reason.code, caught.value.reason.reason) == (1013, "no state")
        assert app.live.publish(1, topic) == 0
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()
