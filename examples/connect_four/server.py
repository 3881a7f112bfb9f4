"""Connect Four: make a game, send the link to a friend, or the other one to those who watch.

The server knows the rules, so a page can be as wrong as it likes. A player's seat belongs to a
secret that the page has made up: with it, one comes back to it after a reload or a lost connection.

Several processes are one house if they share a Redis server:

    cd examples/connect_four
    REDIS_URL=redis://localhost trio-ws serve server:application --workers 4
"""

import argparse
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import count, takewhile
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import trio

from trio_ws import (
    Broadcast,
    CloseCode,
    Latest,
    Request,
    Response,
    Router,
    WebSocket,
    WebSocketServer,
    open_broadcast,
    serve_websocket,
)
from trio_ws.backplane import RedisBackplane

T = TypeVar("T")

HERE = Path(__file__).parent
PAGE = (HERE / "index.html").read_text("utf-8")

COLUMNS, ROWS = 7, 6
MOST_TABLES = 1000
FORGET_AFTER = 3600  # seconds without anybody at the table

NO_SUCH_GAME = CloseCode.POLICY_VIOLATION  # to a page, it means: do not come back

Colour = Literal["red", "yellow"]
Place = tuple[int, int]  # column and row, from the left and from below

OTHER: dict[Colour, Colour] = {"red": "yellow", "yellow": "red"}


# The rules…


class IllegalMove(Exception):
    """Its text is for the player."""


class Game:
    """One game. `turn` is `None` when it is over; then `four` are the winner's, if anybody won."""

    def __init__(self, first: Colour = "red") -> None:
        self.first: Colour = first
        self.turn: Colour | None = first
        self.columns: list[list[Colour]] = [[] for _ in range(COLUMNS)]
        self.four: list[Place] = []

    @property
    def winner(self) -> Colour | None:
        return self._at(self.four[0]) if self.four else None

    def drop(self, colour: Colour, column: int) -> None:
        if self.turn is None:
            raise IllegalMove("The game is over.")
        if colour != self.turn:
            raise IllegalMove("It is not your turn.")
        if not 0 <= column < COLUMNS:
            raise IllegalMove("There is no such column.")
        if len(self.columns[column]) == ROWS:
            raise IllegalMove("That column is full.")
        self.columns[column].append(colour)
        self.four = self._four_through((column, len(self.columns[column]) - 1))
        is_full = all(len(discs) == ROWS for discs in self.columns)
        self.turn = None if self.four or is_full else OTHER[colour]

    def _four_through(self, place: Place) -> list[Place]:
        """Four in a row, or more of them, with this disc among them."""
        for across, up in ((1, 0), (0, 1), (1, 1), (1, -1)):
            back, forth = self._same(place, -across, -up), self._same(place, across, up)
            row = [*reversed(back), place, *forth]
            if len(row) >= 4:
                return row
        return []

    def _same(self, place: Place, across: int, up: int) -> list[Place]:
        """The places of the same colour from this one on, in that direction."""
        column, row = place
        ray = ((column + n * across, row + n * up) for n in count(1))
        return list(takewhile(lambda other: self._at(other) == self._at(place), ray))

    def _at(self, place: Place) -> Colour | None:
        column, row = place
        if 0 <= column < COLUMNS and 0 <= row < len(self.columns[column]):
            return self.columns[column][row]
        return None


# Who plays…


@dataclass
class Table:
    """A game, or one after the other. JSON can hold it, with the moves rather than the game."""

    join_link: str = field(default_factory=partial(secrets.token_urlsafe, 9))
    watch_link: str = field(default_factory=partial(secrets.token_urlsafe, 9))
    first: Colour = "red"
    moves: list[int] = field(default_factory=list[int])
    seats: dict[str, Colour] = field(default_factory=dict[str, Colour])
    wants_another: list[Colour] = field(default_factory=list[Colour])

    def game(self) -> Game:
        game = Game(self.first)
        for column in self.moves:
            assert game.turn is not None
            game.drop(game.turn, column)
        return game

    def sit(self, secret: str) -> Colour | None:
        """The seat of whoever has this secret, or one that is free; `None` for a watcher."""
        if secret not in self.seats and len(self.seats) < 2:
            self.seats[secret] = "yellow" if self.seats else "red"
        return self.seats.get(secret)

    def obey(self, colour: Colour | None, command: str) -> None:
        if colour is None:
            raise IllegalMove("You are watching.")
        match command.split():
            case ["drop", column] if column.isdecimal() and len(column) == 1:
                if len(self.seats) < 2:
                    raise IllegalMove("Wait for your opponent.")
                self.game().drop(colour, int(column))
                self.moves.append(int(column))
            case ["again"]:
                self.play_again(colour)
            case _:
                raise IllegalMove("This is neither a move nor a wish for another game.")

    def play_again(self, colour: Colour) -> None:
        """Start over when both want to. Who was second goes first."""
        if self.game().turn is not None:
            raise IllegalMove("The game is not over.")
        if colour not in self.wants_another:
            self.wants_another.append(colour)
        if len(self.wants_another) == 2:
            self.wants_another.clear()
            self.moves.clear()
            self.first = OTHER[self.first]

    def show(self, people: Iterable[Colour | None]) -> dict[str, object]:
        """What the pages are sent, with who is there."""
        game, here = self.game(), Counter(people)
        return {
            "columns": game.columns,
            "turn": game.turn,
            "winner": game.winner,
            "four": game.four,
            "seats": list(self.seats.values()),
            "here": {"red": here["red"], "yellow": here["yellow"]},
            "watchers": here[None],
            "wants_another": self.wants_another,
        }


class Tables(Protocol):
    """All of them, by both their links."""

    async def add(self) -> Table | None:
        """A new table; `None` if the house is full."""

    async def get(self, link: str) -> Table | None: ...

    async def change(self, link: str, change: Callable[[Table], T]) -> T:
        """Change a table that is there, as if nobody else did at the same time."""
        ...


class InMemory:
    def __init__(self, is_empty: Callable[[Table], bool]) -> None:
        self._is_empty = is_empty
        self._tables: dict[str, Table] = {}
        self._used: dict[str, float] = {}

    async def add(self) -> Table | None:
        self._forget_old_ones()
        if len(self._tables) >= 2 * MOST_TABLES:
            return None
        table = Table()
        for link in (table.join_link, table.watch_link):
            self._tables[link] = table
            self._used[link] = trio.current_time()
        return table

    async def get(self, link: str) -> Table | None:
        return self._tables.get(link)

    async def change(self, link: str, change: Callable[[Table], T]) -> T:
        return change(self._tables[link])

    def _forget_old_ones(self) -> None:
        now = trio.current_time()
        for link, table in list(self._tables.items()):
            if not self._is_empty(table):
                self._used[link] = now
            elif self._used[link] < now - FORGET_AFTER:
                del self._tables[link], self._used[link]


# The connections…


async def play(
    ws: WebSocket, tables: Tables, table: Table, colour: Colour | None, broadcast: Broadcast
) -> None:
    link = table.watch_link
    showing = trio.Lock()

    async def show() -> None:
        """Send the newest state. One reads at a time, so an older one never comes later."""
        async with showing:
            newest = await tables.get(link)
            if newest is not None:
                people = broadcast.presence(link).members.values()
                await ws.send_json(newest.show(people))

    async def follow_the_people() -> None:
        async for _ in broadcast.presence(link):
            await show()

    async def follow_the_game() -> None:
        # A slow page needs only the newest state of its game.
        async with broadcast.open_channel(link, policy=Latest()) as changes:
            async for _ in changes:
                await show()

    links = {"join": table.join_link, "watch": table.watch_link}
    await ws.send_json({"you": colour, **(links if colour else {})})
    with broadcast.join(link, secrets.token_hex(8), colour, websocket=ws):
        async with ws.open_nursery() as nursery:
            nursery.start_soon(follow_the_game)
            nursery.start_soon(follow_the_people)
            async for message in ws:
                try:
                    await tables.change(link, partial(obey, colour, str(message)))
                except IllegalMove as exc:
                    await ws.send_json({"problem": str(exc)})
                else:
                    note_change(broadcast, link)


def sit(secret: str, table: Table) -> Colour | None:
    return table.sit(secret)


def obey(colour: Colour | None, command: str, table: Table) -> None:
    table.obey(colour, command)


def note_change(broadcast: Broadcast, link: str | None) -> None:
    """Have the pages of a table, in all processes, sent its newest state.

    Also called where a process may have missed that. Redis's backplane says of which table.
    """
    if link is not None:
        broadcast.publish("changed", link)


def make_router(tables: Tables, broadcast: Broadcast) -> Router:
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    @router.post("/games")
    async def make_game(request: Request) -> Response:
        table = await tables.add()
        if table is None:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, body="All tables are taken.\n")
        return Response(HTTPStatus.SEE_OTHER, {"Location": f"/?join={table.join_link}"})

    @router.websocket("/ws/<link>")
    async def connect(ws: WebSocket, link: str) -> None:
        table = await tables.get(link)
        if table is None:
            await ws.aclose(NO_SUCH_GAME, "There is no such game any more")
            return
        colour: Colour | None = None
        if link == table.join_link:
            secret = None
            with trio.move_on_after(10):
                secret = str(await ws.receive())
            if secret is None:
                await ws.aclose(CloseCode.POLICY_VIOLATION, "Who are you?")
                return
            colour = await tables.change(link, partial(sit, secret))
            note_change(broadcast, table.watch_link)
        await play(ws, tables, table, colour, broadcast)

    return router


async def main(port: int) -> None:
    async with application() as router, trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, router, "localhost", port)
        print(f"Open http://localhost:{server.port}/ (Ctrl-C ends it)", flush=True)


# In several processes…


#: Writes a table, unless it is no longer what was read.
REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""


@asynccontextmanager
async def open_in_redis(url: str) -> AsyncGenerator[Tables, None]:
    """The tables in Redis, which forgets each after a day.

    While Redis is away, what a page does or is to be sent is an error, and closes it with 1011. It
    comes back.
    """
    from coredis import Redis  # noqa: PLC0415 - one process needs no Redis
    from coredis.retry import NoRetryPolicy  # noqa: PLC0415

    policy = NoRetryPolicy()  # what fails is tried again by the page
    redis = Redis.from_url(url, decode_responses=True, retry_policy=policy, stream_timeout=5)
    prefix, day = "example:connect_four:", 24 * 3600

    class InRedis:
        async def add(self) -> Table | None:
            table = Table()
            text = json.dumps(asdict(table))
            await redis.set(prefix + table.watch_link, text, ex=day)
            await redis.set(prefix + table.join_link, table.watch_link, ex=day)
            return table

        async def get(self, link: str) -> Table | None:
            text = await self._read(link)
            return Table(**json.loads(text)) if text else None

        async def change(self, link: str, change: Callable[[Table], T]) -> T:
            while True:
                text = await self._read(link)
                if not text:
                    raise IllegalMove("There is no such game any more.")
                table = Table(**json.loads(text))
                result = change(table)
                arguments = [text, json.dumps(asdict(table))]
                if await redis.eval(REPLACE, [prefix + table.watch_link], arguments):
                    return result

        async def _read(self, link: str) -> str | None:
            text = await redis.get(prefix + link)
            if text and not text.startswith("{"):  # it was the link for players
                text = await redis.get(prefix + text)
            return text

    async with redis:
        yield InRedis()


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    url = os.environ.get("REDIS_URL")
    if url:
        async with (
            open_in_redis(url) as tables,
            open_broadcast(on_gap=note_change, backplane=RedisBackplane(url)) as broadcast,
        ):
            yield make_router(tables, broadcast)
    elif "TRIO_WS_WORKER" in os.environ:
        raise RuntimeError(
            "several workers share the games by Redis: set REDIS_URL, "
            "for example to redis://localhost"
        )
    else:
        async with open_broadcast() as broadcast:
            in_memory = InMemory(lambda table: broadcast.presence(table.watch_link).count == 0)
            yield make_router(in_memory, broadcast)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of scripts
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port)
    except* KeyboardInterrupt:
        pass
