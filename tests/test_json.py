"""JSON without what JavaScript and most others refuse: both ways, and wherever it goes out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.web.web_helpers import http, open_site
from trio_ws import InvalidRequest, Request, Response, Router, open_broadcast
from trio_ws._json import from_json, same_json, to_json
from trio_ws.testing import open_pair, open_test_app

NOT_JSON = [math.nan, [math.inf], {"a": {"b": -math.inf}}]
WHAT_TO_DO = "JSON has no NaN and no infinity .* send None, or give dumps=json.dumps"


@pytest.mark.parametrize("value", NOT_JSON)
async def test_nan_is_a_value_error_wherever_json_goes_out(value: Any) -> None:
    async with open_broadcast() as broadcast, open_pair() as (client, server):
        with pytest.raises(ValueError, match=WHAT_TO_DO):
            await client.send_json(value)
        with pytest.raises(ValueError, match=WHAT_TO_DO):
            broadcast.publish_json(value, "topic")
        with pytest.raises(ValueError, match=WHAT_TO_DO):
            Response.json(value)
        await client.send_json(value, dumps=json.dumps)
        assert await server.receive() == json.dumps(value)
        assert Response.json(value, dumps=json.dumps).body == json.dumps(value).encode()


async def test_an_endpoint_that_returns_nan_has_failed() -> None:
    router = Router()
    router.get("/")(lambda request: {"mean": math.nan})
    with pytest.raises(ValueError, match=WHAT_TO_DO):
        async with open_test_app(router) as app:
            await app.get("/")


async def test_a_router_makes_json_as_it_is_told() -> None:
    inner, outer = Router(), Router(dumps=lambda value: json.dumps(value).encode())
    for router in (inner, outer):
        router.get("/list")(lambda request: [math.inf])
        router.get("/own")(lambda request: Response.json([1], dumps=repr))
    outer.mount("/in", inner)
    async with open_test_app(outer, on_handler_error="log") as app:
        response = await app.get("/list")
        assert (response.status, response.body) == (200, b"[Infinity]")
        assert response.headers["Content-Type"] == "application/json"
        assert (await app.get("/own")).json() == [1]
        assert (await app.get("/in/list")).status == 500
        assert (await app.get("/in/own")).json() == [1]
    wrong: Any = "json"
    with pytest.raises(TypeError, match="dumps is a function that makes JSON, not 'json'"):
        Router(dumps=wrong)


def test_what_else_json_cannot_express_is_the_error_that_python_has_for_it() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular reference"):
        to_json(loop)
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_json(object())


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)


@given(JSON)
def test_what_is_written_is_what_python_writes_and_is_read_again(value: Any) -> None:
    try:
        text = to_json(value)
    except ValueError:
        with pytest.raises(ValueError, match="Out of range"):
            json.dumps(value, allow_nan=False)
        return
    assert text == json.dumps(value)
    assert from_json(text) == value


#: Beside NaN, what a stranger may send as a number that is none here.
ODD_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400 + ".5", "9" * 5000]


@pytest.mark.parametrize("number", ODD_NUMBERS)
async def test_a_body_that_could_not_be_sent_back_is_400(number: str) -> None:
    router = Router()
    router.post("/")(lambda request: [request.json()])
    async with open_site(router, on_handler_error="propagate") as (_, client):
        for text in (number, f'{{"a": [{number}]}}'):
            asked = http("POST /", text.encode(), Content_Type="application/json")
            response = await client.ask(asked)
            assert (response.status, response.text) == (400, "the body is not JSON\n")


@given(st.one_of(st.binary(), st.text().map(str.encode), JSON.map(json.dumps).map(str.encode)))
def test_any_body_is_json_that_can_be_sent_back_or_refused(body: bytes) -> None:
    asked = Request("POST", "/", Response.json(None).headers, body=body)
    try:
        value = asked.json()
    except InvalidRequest as exc:
        assert exc.response.status == 400
    else:
        assert from_json(to_json(value)) == value


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ({"a": [1]}, {"a": [1]}, True),
        (None, None, True),
        (0, False, False),
        (1, 1.0, False),
        ([True], [1], False),
        ("a", "b", False),
    ],
)
def test_what_is_written_alike_is_the_same(one: object, other: object, *, alike: bool) -> None:
    assert same_json(one, other) is alike
