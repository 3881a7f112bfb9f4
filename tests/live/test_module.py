"""The module for browsers, in Node, against a server that says what each test says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_ws
from tests.interop.processes import ROOT
from tests.live.scripted import V1, page_at, serving

MODULE = Path(trio_ws.__file__).parent / "live" / "live.js"


def test_it_is_small_as_it_stands_and_needs_nothing() -> None:
    source = MODULE.read_text("utf-8")
    assert len(source.encode()) < 5000
    assert not re.search(r"\bimport\b|\brequire\(", source)


async def test_its_types_are_those_of_a_page_that_uses_it() -> None:
    node = ROOT / "tests" / "interop" / "node"
    tsc = [
        *("node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict"),
        *("--target", "es2022", "--lib", "es2022,dom", "--module", "nodenext", "types.ts"),
    ]
    result = await trio.run_process(tsc, cwd=node, capture_stdout=True, check=False)
    assert (result.stdout.decode(), result.returncode) == ("", 0)


def message(data: object, position: str | None = None, topic: str = "news") -> dict[str, Any]:
    about = {} if position is None else {"position": position}
    return {"type": "message", "topic": topic, "data": data, **about}


# Topics…


async def test_a_page_gets_what_it_subscribed_to() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        ws = await server.next()
        asked = {"type": "subscribe", "topic": "news", "presence": False}
        assert await ws.receive_json() == asked
        said: list[dict[str, Any]] = [
            {"type": "subscribed", "topic": "news", "recovered": False},
            {"type": "state", "topic": "news", "position": "a-1", "data": [1]},
            message(2, "a-2"),
            {"type": "current", "topic": "news", "position": "a-2"},
            message({"news": "of the moment"}),
            {"type": "gap", "topic": "news"},
        ]
        for each in said:
            await ws.send_json(each)
        for each in said:
            assert await page.next(each["type"]) == each


async def test_a_page_comes_back_to_where_it_was_in_each_topic() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        ws = await server.subscribed()
        await page.do("subscribe", "sport")
        await ws.receive_json()
        await ws.send_json({"type": "subscribed", "topic": "sport", "recovered": False})
        await ws.send_json(message(1, "a-1"))
        await ws.send_json({"type": "current", "topic": "sport", "position": "b-7"})
        await ws.send_json(message("of no position"))
        await ws.aclose(1012)
        ws = await server.next()
        asked = [await ws.receive_json() for _ in range(2)]
        assert [(each["topic"], each["position"]) for each in asked] == [
            ("news", "a-1"),
            ("sport", "b-7"),
        ]
        await ws.send_json({"type": "subscribed", "topic": "news", "recovered": True})
        assert (await page.next("subscribed"))["recovered"] is False
        assert (await page.next("subscribed"))["topic"] == "sport"
        assert (await page.next("subscribed"))["recovered"] is True


async def test_what_was_on_its_way_to_an_earlier_subscription_is_none_of_the_next() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        ws = await server.subscribed()
        await page.next("subscribed")
        await page.do("unsubscribe", "news")
        await page.do("unsubscribe", "news")  # for good measure
        await page.do("subscribe", "news")
        assert await ws.receive_json() == {"type": "unsubscribe", "topic": "news"}
        assert (await ws.receive_json())["type"] == "subscribe"
        await ws.send_json(message("old", "a-1"))
        await ws.send_json({"type": "subscribed", "topic": "news", "recovered": False})
        await ws.send_json(message("new", "a-2"))
        assert (await page.next("message"))["data"] == "new"


async def test_a_topic_is_subscribed_to_once_and_no_more_when_it_was_refused() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        await page.do("subscribe", "news")
        assert await page.next("raised") == {"message": "subscribed already"}
        ws = await server.next()
        await ws.receive_json()
        error = {"type": "error", "topic": "news", "code": "forbidden", "reason": "not for you"}
        await ws.send_json(error)
        assert await page.next("error") == error
        await ws.aclose(1012)
        ws = await server.next()
        await page.do("subscribe", "sport")
        assert (await ws.receive_json())["topic"] == "sport"


async def test_what_a_page_does_not_know_of_does_no_harm() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        ws = await server.subscribed()
        for strange in ({"type": "weather", "topic": "news"}, {"type": "constructor"}, {}):
            await ws.send_json(strange)
        for error in ({"code": "unknown_type"}, {"code": "refused", "id": "99"}):
            await ws.send_json({"type": "error", "reason": "of nothing", **error})
        await ws.send_json({"type": "ack", "id": "99"})
        await ws.send_json({**message(1), "weather": "fine"})
        assert (await page.next("message"))["data"] == 1


async def test_who_is_there_is_put_together_from_what_changed() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news", "presence")
        ws = await server.next()
        assert (await ws.receive_json())["presence"] is True
        await ws.send_json({"type": "subscribed", "topic": "news", "recovered": False})
        changes: list[tuple[dict[str, Any], list[str], dict[str, Any]]] = [
            ({"ada": 1, "__proto__": 2}, [], {"ada": 1, "__proto__": 2}),
            ({"bob": {"x": 1}}, ["ada", "nobody"], {"__proto__": 2, "bob": {"x": 1}}),
            ({"bob": {"x": 2}}, [], {"__proto__": 2, "bob": {"x": 2}}),
            ({"eve": None}, [], {"eve": None}),
        ]
        for joined, left, members in changes:
            change = {"type": "presence", "topic": "news", "joined": joined, "left": left}
            await ws.send_json({**change, "all": True} if joined == members else change)
            assert (await page.next("presence"))["members"] == members


# Sending…


async def test_what_is_sent_is_acknowledged_or_refused() -> None:
    async with serving() as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        ws = await server.subscribed()
        await page.next("subscribed")
        for data in ("one", {"two": 2}, [3]):
            await page.do("send", "news", data)
        sent = [await ws.receive_json() for _ in range(3)]
        assert [(each["type"], each["topic"]) for each in sent] == [("send", "news")] * 3
        assert [each["data"] for each in sent] == ["one", {"two": 2}, [3]]
        ids = [each["id"] for each in sent]
        assert len(set(ids)) == 3
        await ws.send_json({"type": "ack", "id": ids[1]})
        assert await page.next("answer") == {"answer": None}
        await ws.send_json({"type": "ack", "id": ids[2], "data": "through"})
        assert await page.next("answer") == {"answer": "through"}
        error = {"type": "error", "id": ids[0], "topic": "news", "code": "refused", "reason": "no"}
        await ws.send_json(error)
        assert await page.next("failure") == {"code": "refused", "message": "no", "data": "one"}
        await ws.send_json(message("the subscription goes on"))
        await page.next("message")


async def test_what_is_not_acknowledged_is_handed_back_and_not_sent_again() -> None:
    async with serving() as server, page_at(server.url, maxPending=2) as page:
        await page.do("send", "news", "too early")
        assert (await page.next("failure"))["code"] == "offline"
        await page.do("subscribe", "news")
        ws = await server.subscribed()
        await page.next("subscribed")
        for data in ("one", "two", "three"):
            await page.do("send", "news", data)
        full = {"code": "full", "message": "full", "data": "three"}
        assert await page.next("failure") == full
        for _ in range(2):
            await ws.receive_json()
        await ws.aclose(1011)
        for data in ("one", "two"):
            lost = {"code": "lost", "message": "lost", "data": data}
            assert await page.next("failure") == lost
        ws = await server.subscribed()
        await page.next("subscribed")
        await page.do("send", "news", "four")
        assert (await ws.receive_json())["data"] == "four"


# Coming back…


@pytest.mark.parametrize("code", [1003, 1007, 1008, 1009, 1010, 3000, 3003])
async def test_a_final_code_ends_it_and_nothing_keeps_the_process(code: int) -> None:
    async with serving() as server, page_at(server.url) as page:
        ws = await server.next()
        await ws.aclose(code, "that is it")
        assert await page.until("closed") == {
            "state": "closed",
            "code": code,
            "reason": "that is it",
        }


async def test_it_comes_back_after_any_other_code() -> None:
    async with serving() as server, page_at(server.url) as page:
        for code in (1000, 1001, 1011, 1012, 1013, 4000):
            ws = await server.next()
            await ws.aclose(code, "come back")
            status = {"state": "waiting", "code": code, "reason": "come back"}
            assert await page.until("waiting") == status
        await server.next()


async def test_closing_is_for_good_whatever_it_does() -> None:
    async with serving() as server, page_at(server.url) as page:
        await server.next()
        await page.until("open")
        await page.do("close")
        await page.do("close")
        assert (await page.until("closed"))["code"] == 1000
    async with page_at("ws://localhost:1/", minDelay=10**8) as page:
        await page.until("waiting")
        await page.do("close")  # or the process would last for a day
        await page.until("closed")


async def test_the_back_off_begins_anew_only_after_a_connection_that_held() -> None:
    # Of the pauses, the longest that each may be is reported, and none is made.
    options: dict[str, Any] = {"minDelay": 20, "maxDelay": 100, "pauses": True}
    async with serving() as server, page_at(server.url, **options) as page:

        async def pause_after(code: int, held: int = 0) -> int:
            ws = await server.next()
            await page.until("open")
            await page.do("pass", held)
            await page.next("passed")
            await ws.aclose(code)
            return int((await page.next("pause"))["pause"])

        assert [await pause_after(1011) for _ in range(5)] == [40, 60, 100, 120, 120]
        assert await pause_after(1011, held=100) == 120
        assert await pause_after(1013, held=101) == 120  # it says that it is too busy
        assert await pause_after(1012, held=101) == 40
        assert await pause_after(1012, held=20) == 60


async def test_a_server_that_does_not_speak_the_protocol_gets_no_message() -> None:
    async with serving(subprotocols=()) as server, page_at(server.url) as page:
        await page.do("subscribe", "news")
        ws = await server.next()
        await page.until("waiting")
        await ws.wait_closed()
        assert ws.statistics().messages_received == 0


async def test_the_token_is_asked_for_each_time_and_may_fail() -> None:
    tokens = ["first", "raise", "second", None]
    async with serving() as server, page_at(server.url, tokens=tokens) as page:
        for expected in ("first", "second", None):
            ws = await server.next()
            assert ws.subprotocol == V1
            assert ws.request.subprotocol_token("trio-ws.token.") == expected
            await ws.aclose(1012)
            if expected == "first":
                await page.until("waiting")
                assert (await page.until("waiting"))["reason"] == "Error: no token"


async def test_a_silent_server_is_asked_and_left_if_it_does_not_answer() -> None:
    async with serving() as server, page_at(server.url, quiet=1, timeout=500) as page:
        ws = await server.next()
        for _ in range(3):
            assert await ws.receive_json() == {"type": "ping"}
            await ws.send_json({"type": "pong"})
        await ws.receive_json()
        await page.until("waiting")
        await server.next()


async def test_a_handshake_that_hangs_is_given_up() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with page_at(f"ws://127.0.0.1:{port}/", timeout=50) as page:
        for _ in range(2):
            stream = await listeners[0].accept()
            await page.until("waiting")
            await stream.aclose()
    await listeners[0].aclose()


async def test_a_page_out_of_the_network_waits_and_one_that_is_back_does_not() -> None:
    async with (
        serving() as server,
        page_at(server.url, page=True, minDelay=10**8, timeout=10**7) as page,
    ):
        await server.next()
        await page.until("open")
        await page.do("window", "offline")
        await page.do("window", "offline")
        await page.until("waiting")
        await page.do("document", "visibilitychange", True)  # nobody looks at it
        await page.do("window", "online")
        await page.do("document", "visibilitychange", False)
        ws = await server.next()
        await page.until("open")
        await page.do("window", "online")  # perhaps over another network
        assert await ws.receive_json() == {"type": "ping"}
        assert page.seen == []


# Without topics…


async def test_any_protocol_can_come_back() -> None:
    async with (
        serving(subprotocols=()) as server,
        page_at(server.url.replace("ws", "http", 1), raw=True, quiet=1) as page,
    ):
        ws = await server.next()
        await page.until("open")
        await page.do("put", "hello")
        assert await ws.receive() == "hello"  # and nothing else, however silent it is
        await ws.send("hello yourself")
        assert await page.next("put") == {"sent": True}
        assert await page.next("data") == {"data": "hello yourself"}
        await ws.aclose(1011)
        ws = await server.next()
        await ws.aclose(1008)
        await page.until("closed")
        await page.do("put", "anybody?")
        assert await page.next("put") == {"sent": False}
