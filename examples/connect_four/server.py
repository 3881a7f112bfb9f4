"""Connect Four: make a game, send the link to a friend, or the other one to those who watch.

The server knows the rules, so a page can be as wrong as it likes. A player's seat belongs to a
secret that the page has made up: with it, one comes back to it after a reload or a lost connection.

The games are in the memory of one process.
"""

import argparse
import json
import os
import secrets
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from itertools import count, takewhile
from pathlib import Path
from typing import Literal

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


class Table:
    """A game, or one after the other, with those who are there."""

    def __init__(self) -> None:
        self.join_link = secrets.token_urlsafe(9)
        self.watch_link = secrets.token_urlsafe(9)
        self.game = Game()
        self.seats: dict[str, Colour] = {}
        self.wants_another: set[Colour] = set()
        self.here: dict[Colour | None, int] = {"red": 0, "yellow": 0, None: 0}
        self.used = trio.current_time()

    def sit(self, secret: str) -> Colour | None:
        """The seat of whoever has this secret, or one that is free; `None` for a watcher."""
        if secret not in self.seats and len(self.seats) < 2:
            self.seats[secret] = "yellow" if self.seats else "red"
        return self.seats.get(secret)

    @contextmanager
    def presence(self, colour: Colour | None) -> Generator[None, None, None]:
        self.here[colour] += 1
        try:
            yield
        finally:
            self.here[colour] -= 1
            self.used = trio.current_time()

    def obey(self, colour: Colour | None, command: str) -> None:
        if colour is None:
            raise IllegalMove("You are watching.")
        match command.split():
            case ["drop", column] if column.isdecimal() and len(column) == 1:
                if len(self.seats) < 2:
                    raise IllegalMove("Wait for your opponent.")
                self.game.drop(colour, int(column))
            case ["again"]:
                self.play_again(colour)
            case _:
                raise IllegalMove("This is neither a move nor a wish for another game.")

    def play_again(self, colour: Colour) -> None:
        """Start over when both want to. Who was second goes first."""
        if self.game.turn is not None:
            raise IllegalMove("The game is not over.")
        self.wants_another.add(colour)
        if len(self.wants_another) == 2:
            self.wants_another.clear()
            self.game = Game(OTHER[self.game.first])

    def show(self) -> str:
        return json.dumps(
            {
                "columns": self.game.columns,
                "turn": self.game.turn,
                "winner": self.game.winner,
                "four": self.game.four,
                "seats": list(self.seats.values()),
                "here": {"red": self.here["red"], "yellow": self.here["yellow"]},
                "watchers": self.here[None],
                "wants_another": list(self.wants_another),
            }
        )


class Tables:
    """All of them, by both their links."""

    def __init__(self) -> None:
        self._tables: dict[str, Table] = {}

    def get(self, link: str) -> Table | None:
        return self._tables.get(link)

    def add(self) -> Table | None:
        """A new table; `None` if the house is full."""
        self._forget_old_ones()
        if len(self._tables) >= 2 * MOST_TABLES:
            return None
        table = Table()
        self._tables[table.join_link] = self._tables[table.watch_link] = table
        return table

    def _forget_old_ones(self) -> None:
        long_ago = trio.current_time() - FORGET_AFTER
        for link, table in list(self._tables.items()):
            if table.used < long_ago and not any(table.here.values()):
                del self._tables[link]


# The connections…


async def play(ws: WebSocket, table: Table, colour: Colour | None, broadcast: Broadcast) -> None:
    def show_all() -> None:
        broadcast.publish(table.show(), table.watch_link)

    links = {"join": table.join_link, "watch": table.watch_link}
    try:
        with table.presence(colour), broadcast.subscribe(ws, table.watch_link):
            await ws.send_json({"you": colour, **(links if colour else {})})
            show_all()
            async for message in ws:
                try:
                    table.obey(colour, str(message))
                except IllegalMove as exc:
                    await ws.send_json({"problem": str(exc)})
                else:
                    show_all()
    finally:
        show_all()


@asynccontextmanager
async def application() -> AsyncGenerator[Router, None]:
    if "TRIO_WS_WORKER" in os.environ:  # a page may be led to a worker that has not its game
        raise RuntimeError("the games are in the memory of one process: start it with --workers 1")
    tables = Tables()
    router = Router()
    router.static("/static", HERE.parent / "static")
    router.live_module("/live.js")

    @router.get("/")
    def page(request: Request) -> str:
        return PAGE

    @router.post("/games")
    def make_game(request: Request) -> Response:
        table = tables.add()
        if table is None:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, body="All tables are taken.\n")
        return Response(HTTPStatus.SEE_OTHER, {"Location": f"/?join={table.join_link}"})

    # A slow page needs only the newest state of its game.
    async with open_broadcast(policy=Latest()) as broadcast:

        @router.websocket("/ws/<link>")
        async def connect(ws: WebSocket, link: str) -> None:
            table = tables.get(link)
            if table is None:
                await ws.aclose(NO_SUCH_GAME, "There is no such game any more")
                return
            colour: Colour | None = None
            if link == table.join_link:
                with trio.move_on_after(10) as patience:
                    colour = table.sit(str(await ws.receive()))
                if patience.cancelled_caught:
                    await ws.aclose(CloseCode.POLICY_VIOLATION, "Who are you?")
                    return
            await play(ws, table, colour, broadcast)

        yield router


async def main(port: int) -> None:
    async with application() as router, trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, router, "localhost", port)
        print(f"Open http://localhost:{server.port}/ (Ctrl-C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="0 for a free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _, __: signal.raise_signal(signal.SIGINT))  # as Ctrl-C
    try:
        trio.run(main, arguments.port)
    except* KeyboardInterrupt:
        pass
