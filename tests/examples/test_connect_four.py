"""The example with a game: its rules, and what its server does whatever a page may send."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from examples.connect_four import server as connect_four
from examples.connect_four.server import COLUMNS, OTHER, ROWS, Game, IllegalMove, application
from trio_ws import ConnectionLost, WebSocket
from trio_ws.testing import MemoryApp, open_test_app

# ---------------------------------------------------------------------------
# The rules
# ---------------------------------------------------------------------------


def play(columns: str) -> Game:
    game = Game()
    for column in columns:
        assert game.turn is not None
        game.drop(game.turn, int(column))
    return game


@pytest.mark.parametrize(
    ("columns", "four"),
    [
        ("0011223", [(0, 0), (1, 0), (2, 0), (3, 0)]),
        ("6655443", [(3, 0), (4, 0), (5, 0), (6, 0)]),
        ("0101010", [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ("01122323363", [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ("65544343303", [(3, 3), (4, 2), (5, 1), (6, 0)]),
        ("00114455223", [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]),
    ],
)
def test_four_or_more_in_a_row_win(columns: str, four: list[tuple[int, int]]) -> None:
    assert play(columns[:-1]).winner is None
    game = play(columns)
    assert (game.winner, game.turn, sorted(game.four)) == ("red", None, four)


@pytest.mark.parametrize(
    ("columns", "colour", "column", "problem"),
    [
        ("", "yellow", 0, "not your turn"),
        ("3", "red", 0, "not your turn"),
        ("000000", "red", 0, "full"),
        ("", "red", 7, "no such column"),
        ("", "red", -1, "no such column"),
        ("0011223", "yellow", 5, "over"),
    ],
)
def test_other_moves_are_refused_and_change_nothing(
    columns: str, colour: Any, column: int, problem: str
) -> None:
    game = play(columns)
    before = [list(discs) for discs in game.columns]
    with pytest.raises(IllegalMove, match=problem):
        game.drop(colour, column)
    assert game.columns == before


def test_a_full_board_without_four_is_a_draw() -> None:
    game = play("436014551150160155104632660465204242223333")
    assert (game.winner, game.turn) == (None, None)
    with pytest.raises(IllegalMove, match="over"):
        game.drop("red", 0)


#: All places of four in a row.
ROWS_OF_FOUR = [
    row
    for column, row_number in itertools.product(range(COLUMNS), range(ROWS))
    for across, up in ((1, 0), (0, 1), (1, 1), (1, -1))
    for row in [[(column + n * across, row_number + n * up) for n in range(4)]]
    if all(c < COLUMNS and 0 <= r < ROWS for c, r in row)
]


@given(st.lists(st.integers(0, COLUMNS - 1), max_size=COLUMNS * ROWS))
def test_the_winner_is_who_has_four_of_the_69_rows(columns: list[int]) -> None:
    assert len(ROWS_OF_FOUR) == 69
    game = Game()
    for column in columns:
        if game.turn is None or len(game.columns[column]) == ROWS:
            continue
        colour = game.turn
        game.drop(colour, column)
        places = {
            (c, r)
            for c, discs in enumerate(game.columns)
            for r, disc in enumerate(discs)
            if disc == colour
        }
        has_won = any(places.issuperset(row) for row in ROWS_OF_FOUR)
        is_full = all(len(discs) == ROWS for discs in game.columns)
        assert game.winner == (colour if has_won else None)
        assert game.turn == (None if has_won or is_full else OTHER[colour])


# ---------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------


@asynccontextmanager
async def playing() -> AsyncGenerator[tuple[MemoryApp, str], None]:
    """The application, and the link to play in a new game of it."""
    with trio.fail_after(3 * connect_four.FORGET_AFTER):
        async with application() as router, open_test_app(router) as app:
            yield app, await make_game(app)


async def make_game(app: MemoryApp) -> str:
    response = await app.request("POST", "/games")
    assert response.status == 303
    return response.headers["Location"].removeprefix("/?join=")


async def sit_down(ws: WebSocket, secret: str) -> dict[str, Any]:
    await ws.send(secret)
    seat: dict[str, Any] = await ws.receive_json()
    return seat


async def receive(ws: WebSocket, **wanted: object) -> dict[str, Any]:
    """The next state that is as wanted; or what went wrong."""
    while True:
        state: dict[str, Any] = await ws.receive_json()
        state["discs"] = sum(map(len, state.get("columns", ())))
        if wanted.items() <= state.items() or "problem" in state:
            return state


@pytest.mark.autojump
async def test_seats_go_to_the_first_two_and_belong_to_their_secrets() -> None:
    async with playing() as (app, link), app.websocket(f"/ws/{link}") as red:
        seat = await sit_down(red, "one")
        assert (seat["you"], seat["join"]) == ("red", link)
        async with app.websocket(f"/ws/{link}") as yellow:
            assert (await sit_down(yellow, "two"))["you"] == "yellow"
            await receive(red, here={"red": 1, "yellow": 1})
        await receive(red, here={"red": 1, "yellow": 0})
        async with (
            app.websocket(f"/ws/{link}") as third,
            app.websocket(f"/ws/{link}") as yellow,
            app.websocket(f"/ws/{seat['watch']}") as watcher,
        ):
            assert await sit_down(third, "three") == {"you": None}
            assert (await sit_down(yellow, "two"))["you"] == "yellow"
            assert await watcher.receive_json() == {"you": None}
            await receive(red, here={"red": 1, "yellow": 1}, watchers=2)


@pytest.mark.autojump
async def test_the_server_keeps_to_the_rules_whatever_it_is_sent() -> None:
    async with (
        playing() as (app, link),
        app.websocket(f"/ws/{link}") as red,
        app.websocket(f"/ws/{link}") as yellow,
    ):
        await sit_down(red, "one")
        await red.send("drop 3")
        assert (await receive(red, turn="yellow"))["problem"] == "Wait for your opponent."
        await sit_down(yellow, "two")

        await yellow.send("drop 3")
        assert (await receive(yellow, turn="red", watchers=1))["problem"] == "It is not your turn."
        for command in ("drop", "drop 10", "drop -1", "drop ³", "drop 3 3", "", "{}", b"drop"):
            await red.send(command)
            assert "neither a move" in (await receive(red, turn="yellow"))["problem"]
        await red.send("again")
        assert "not over" in (await receive(red, turn="yellow"))["problem"]
        await red.send("drop 3")
        state = await receive(yellow, turn="yellow")
        assert state["columns"] == [[], [], [], ["red"], [], [], []]


@pytest.mark.autojump
async def test_both_have_to_want_another_game_and_the_second_begins_it() -> None:
    async with (
        playing() as (app, link),
        app.websocket(f"/ws/{link}") as red,
        app.websocket(f"/ws/{link}") as yellow,
    ):
        watch = (await sit_down(red, "one"))["watch"]
        await sit_down(yellow, "two")
        for column in range(3):
            await red.send(f"drop {column}")
            await receive(yellow, discs=2 * column + 1)
            await yellow.send(f"drop {column}")
            await receive(red, discs=2 * column + 2)
        await red.send("drop 3")
        await receive(yellow, winner="red", turn=None)

        await yellow.send("again")
        await receive(red, wants_another=["yellow"])
        await yellow.send("again")  # wishing twice is no agreement
        async with app.websocket(f"/ws/{watch}") as watcher:
            await watcher.send("again")
            assert (await receive(watcher, winner=None))["problem"] == "You are watching."
        await red.send("again")
        state = await receive(yellow, turn="yellow")
        assert state["columns"] == [[]] * 7


async def test_a_game_that_is_not_there_ends_the_connection_for_good() -> None:
    async with playing() as (app, _), app.websocket("/ws/nowhere") as ws:
        with pytest.raises(ConnectionLost, match="no such game") as caught:
            await ws.receive()
        assert caught.value.reason.code == connect_four.NO_SUCH_GAME


@pytest.mark.autojump
async def test_a_player_who_gives_no_name_is_closed_after_a_while() -> None:
    async with playing() as (app, link), app.websocket(f"/ws/{link}") as ws:
        with pytest.raises(ConnectionLost, match="Who are you"):
            await ws.receive()
        assert trio.current_time() == pytest.approx(10)


@pytest.mark.autojump
async def test_tables_are_finite_and_forgotten_when_nobody_has_been_there_for_an_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect_four, "MOST_TABLES", 2)
    async with playing() as (app, link):
        abandoned = await make_game(app)
        assert (await app.request("POST", "/games")).status == 503
        async with app.websocket(f"/ws/{link}") as ws:
            await sit_down(ws, "one")
            await trio.sleep(connect_four.FORGET_AFTER + 1)
            await make_game(app)
            assert (await app.request("POST", "/games")).status == 503
            async with app.websocket(f"/ws/{abandoned}") as other:
                assert (await other.wait_closed()).code == connect_four.NO_SUCH_GAME
