"""Every page of the examples, in Chromium, against its real server.

None of these is an async test: Playwright runs an event loop of its own in this thread. What the
pages looked like is in tests/artifacts afterwards.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from playwright.sync_api import Browser, Page, expect

from tests.backplane.redis_server import RedisServer
from tests.examples.page_helpers import (
    DESKTOP,
    PHONE,
    Tabs,
    keep,
    launched,
    opened_tabs,
    serving,
)
from tests.examples.scripts import command, output_of


@pytest.fixture(scope="module")
def browser() -> Generator[Browser, None, None]:
    with launched() as browser:
        yield browser


@pytest.fixture
def tabs(browser: Browser) -> Generator[Tabs, None, None]:
    with opened_tabs(browser) as tabs:
        yield tabs


def number(page: Page, selector: str) -> float:
    """The number that an element begins with."""
    found = re.match(r"[\d.,]+", page.locator(selector).inner_text())
    return float(found[0].replace(",", "")) if found else 0


# ---------------------------------------------------------------------------
# Hello
# ---------------------------------------------------------------------------


def greet(page: Page, name: str, answer: str) -> None:
    page.fill("#name", name)
    page.press("#name", "Enter")
    expect(page.locator("#greeting")).to_have_text(answer)


def test_the_greeting(tabs: Tabs) -> None:
    with serving("hello/server.py") as server:
        page = tabs.open(server.url, PHONE)
        greet(page, "Ada", "Hello Ada!")
        greet(page, "Grace", "Hello Grace!")
        keep(page, "hello-phone")
        printed = [
            f"{mark} {text!r}\n"
            for name in ("Ada", "Grace")
            for mark, text in (("<<<", name), (">>>", f"Hello {name}!"))
        ]
        server.stop(printed="".join(printed))
        expect(page.locator("#status")).to_contain_text("Not connected")
        expect(page.locator("#send")).to_be_disabled()


def test_the_greeting_over_tls(tabs: Tabs, tmp_path: Path) -> None:
    trio.run(output_of, "secure/make_certificate.py", "--directory", str(tmp_path))
    certificate = str(tmp_path / "server.pem")
    with serving("secure/server.py", "--certificate", certificate) as server:
        page = tabs.open(server.url)
        assert page.url.startswith("https://")
        assert server.urls["ws"].startswith("wss://")
        greet(page, "Ada", "Hello Ada!")
        keep(page, "secure-desktop")
        server.stop(printed="<<< 'Ada'\n>>> 'Hello Ada!'\n")


# ---------------------------------------------------------------------------
# Clocks
# ---------------------------------------------------------------------------


def test_each_visitors_clock_ticks_when_it_likes(tabs: Tabs) -> None:
    with serving("show_time/server.py") as server:
        desktop, phone = tabs.open(server.url), tabs.open(server.url, PHONE)
        for page in (desktop, phone):
            expect(page.locator("#pauses li").first).to_be_visible()
            expect(page.locator("#time")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
        ticks = {page.locator("#time").get_attribute("datetime") for page in (desktop, phone)}
        assert len(ticks) == 2
        keep(desktop, "show_time-desktop")
        keep(phone, "show_time-phone")


def test_the_synchronised_clock_ticks_in_all_windows_at_once(tabs: Tabs) -> None:
    with serving("sync_time/server.py") as server:
        ticks: tuple[list[str], list[str]] = ([], [])
        desktop = tabs.open(server.url, received=ticks[0])
        phone = tabs.open(server.url, PHONE, received=ticks[1])
        expect(desktop.locator("#watching")).to_have_text("2 windows")
        while len(set(ticks[0]) & set(ticks[1])) < 2:
            desktop.wait_for_timeout(50)
        keep(desktop, "sync_time-desktop")
        keep(phone, "sync_time-phone")

        phone.close()
        expect(desktop.locator("#watching")).to_have_text("1 window")


# ---------------------------------------------------------------------------
# The counter
# ---------------------------------------------------------------------------


def test_tabs_share_the_counter_and_come_back_after_a_restart(tabs: Tabs) -> None:
    with serving("counter/server.py") as server:
        desktop = tabs.open(server.url)
        expect(desktop.locator("#users")).to_have_text("1 user")
        phone = tabs.open(server.url, PHONE)
        for page in (desktop, phone):
            expect(page.locator("#users")).to_have_text("2 users")

        for button, shown in (("#plus", "1"), ("#plus", "2"), ("#minus", "1")):
            desktop.click(button)
            for page in (desktop, phone):
                expect(page.locator("#value")).to_have_text(shown)
        phone.tap("#minus")
        phone.tap("#minus")
        for page in (desktop, phone):
            expect(page.locator("#value")).to_have_text("−1")
        keep(desktop, "counter-desktop")
        keep(phone, "counter-phone")

        phone.close()
        expect(desktop.locator("#users")).to_have_text("1 user")

        server.stop(signal.SIGINT)  # Ctrl-C; the others are stopped by SIGTERM
        expect(desktop.locator("#status")).to_contain_text("Connection lost")
        expect(desktop.locator("#plus")).to_be_disabled()
        keep(desktop, "counter-lost")

    with serving("counter/server.py", port=server.port):
        expect(desktop.locator("#status")).to_have_text("Connected")
        expect(desktop.locator("#users")).to_have_text("1 user")
        expect(desktop.locator("#value")).to_have_text("0")  # it was kept in memory
        desktop.click("#plus")
        expect(desktop.locator("#value")).to_have_text("1")


# ---------------------------------------------------------------------------
# The board
# ---------------------------------------------------------------------------


def write(page: Page, note: str) -> None:
    page.fill("input", note)
    page.press("input", "Enter")
    expect(page.locator("#notes li").last).to_have_text(note)


def test_a_board_is_caught_up_on_after_a_tunnel_and_shown_anew_after_a_restart(tabs: Tabs) -> None:
    with serving("live/server.py") as server:
        desktop, phone = tabs.open(server.url), tabs.open(server.url, PHONE)
        write(desktop, "one")
        write(phone, "<b>two</b>")
        for page in (desktop, phone):
            expect(page.locator("#notes li")).to_have_text(["one", "<b>two</b>"])
        phone.context.set_offline(True)
        expect(phone.locator("#status")).to_contain_text("Connection lost")
        expect(phone.locator("button")).to_be_disabled()
        write(desktop, "three")
        phone.context.set_offline(False)
        expect(phone.locator("#notes li")).to_have_text(["one", "<b>two</b>", "three"])
        keep(desktop, "live-desktop")
        keep(phone, "live-phone")
    with serving("live/server.py", port=server.port):
        for page in (desktop, phone):
            expect(page.locator("#status")).to_have_text("Connected")
            expect(page.locator("#notes li")).to_have_count(0)  # they were kept in memory
        write(phone, "four")
        expect(desktop.locator("#notes li")).to_have_text(["four"])


# ---------------------------------------------------------------------------
# The chat
# ---------------------------------------------------------------------------


def enter(tabs: Tabs, url: str, name: str, room: str, look: dict[str, Any] = DESKTOP) -> Page:
    page = tabs.open(url, look, wait=False)
    page.fill("#name", name)
    page.fill("#room", room)
    page.press("#room", "Enter")
    expect(page.locator("#status")).to_have_text("Connected")
    expect(page.locator("#people li", has_text=name)).to_be_visible()
    return page


def say(page: Page, text: str) -> None:
    page.fill("#say input", text)
    page.press("#say input", "Enter")
    expect(page.locator("#lines p").last).to_have_text(text)


def expect_people(page: Page, *names: str) -> None:
    expect(page.locator("#people li")).to_have_text(list(names))


def expect_lines(page: Page, *texts: str) -> None:
    expect(page.locator("#lines p")).to_have_text(list(texts))


def test_what_is_said_in_a_room_stays_there_and_newcomers_hear_the_last_of_it(tabs: Tabs) -> None:
    with serving("chat/server.py") as server:
        ada = enter(tabs, server.url, "Ada", "lobby")
        kay = enter(tabs, server.url, "Kay", "kitchen")
        say(ada, "Is anybody here?")
        grace = enter(tabs, server.url, "Grace", "lobby", PHONE)
        expect_lines(grace, "Is anybody here?")
        for page in (ada, grace):
            expect_people(page, "Ada", "Grace")
        expect_people(kay, "Kay")

        say(grace, "I am! And <b>this</b> is no HTML.")
        say(kay, "Nobody but me in the kitchen, it seems.")
        expect_lines(ada, "Is anybody here?", "I am! And <b>this</b> is no HTML.")
        expect_lines(grace, "Is anybody here?", "I am! And <b>this</b> is no HTML.")
        expect_lines(kay, "Nobody but me in the kitchen, it seems.")
        keep(ada, "chat-desktop")
        keep(grace, "chat-phone")

        grace.close()
        expect_people(ada, "Ada")
        kay.click("#doors a:has-text('lobby')")
        expect_people(ada, "Ada", "Kay")
        expect_lines(kay, "Is anybody here?", "I am! And <b>this</b> is no HTML.")


def test_a_page_that_was_away_hears_what_it_missed_once(tabs: Tabs) -> None:
    with serving("chat/server.py") as server:
        ada, bob = (enter(tabs, server.url, name, "lobby") for name in ("Ada", "Bob"))
        say(ada, "one")
        expect_lines(bob, "one")
        bob.context.set_offline(True)
        expect(bob.locator("#status")).to_contain_text("Connection lost")
        expect_people(ada, "Ada")
        say(ada, "two")
        bob.context.set_offline(False)
        expect(bob.locator("#status")).to_have_text("Connected")
        expect_lines(bob, "one", "two")


def test_two_processes_and_redis_are_one_chat(tabs: Tabs, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    try:
        trio.run(redis.start)
        serve = partial(serving, "chat/server.py", "--redis", redis.url)
        with serve() as one, serve() as other:
            ada = enter(tabs, one.url, "Ada", "lobby")
            bob = enter(tabs, other.url, "Bob", "lobby")
            kay = enter(tabs, other.url, "Kay", "kitchen")
            for page in (ada, bob):
                expect_people(page, "Ada", "Bob")
            say(ada, "from one server")
            expect_lines(bob, "from one server")
            say(bob, "to the other")
            for page in (ada, bob):
                expect_lines(page, "from one server", "to the other")
            expect_people(kay, "Kay")
            expect_lines(kay)

            bob.close()
            expect_people(ada, "Ada")
    finally:
        redis.close()


# ---------------------------------------------------------------------------
# The tutorial
# ---------------------------------------------------------------------------


def test_the_tutorial_echoes_to_one_and_posts_to_all(tabs: Tabs) -> None:
    with serving("quart_tutorial/server.py") as server:
        desktop, phone = tabs.open(server.url), tabs.open(server.url, PHONE)
        desktop.fill("#echo input", "hello")
        desktop.press("#echo input", "Enter")
        expect(desktop.locator("#echoed")).to_have_text("echo hello")

        phone.fill("#post input", "news for all")
        phone.press("#post input", "Enter")
        for page in (desktop, phone):
            expect(page.locator("#heard li")).to_have_text(["news for all"])
        expect(phone.locator("#echoed")).to_have_text("")
        keep(desktop, "tutorial-desktop")
        keep(phone, "tutorial-phone")


# ---------------------------------------------------------------------------
# The site
# ---------------------------------------------------------------------------


def test_a_site_has_rooms_behind_links(tabs: Tabs) -> None:
    with serving("site/server.py") as server:
        page = tabs.open(server.url, PHONE, wait=False)
        page.click("text=Enter the lobby")
        other = tabs.open(page.url)
        for each in (page, other):  # the look that the examples share
            expect(each.locator("main")).to_have_css("border-radius", re.compile("2[04]px"))
        page.fill("input", "hello")
        page.press("input", "Enter")
        for each in (page, other):
            expect(each.locator("li")).to_have_text(["hello"])
        keep(page, "site-phone")
        keep(other, "site-desktop")


# ---------------------------------------------------------------------------
# The dashboard
# ---------------------------------------------------------------------------


def test_the_dashboard_plots_what_the_slider_asks_for(tabs: Tabs) -> None:
    with serving("dashboard/server.py") as server:
        desktop, phone = tabs.open(server.url), tabs.open(server.url, PHONE)
        expect(desktop.locator("#visitors")).to_have_text("2")
        for chart in ("messages", "trip", "processor", "delay"):
            expect(desktop.locator(f"#{chart}")).to_have_text(re.compile(r"\d"))
        for page in (desktop, phone):
            page.fill("#rate", "0")
        expect(desktop.locator("#messages")).to_have_text("0")
        expect(desktop.locator("#trip")).to_have_text("–")
        total = number(desktop, "#total")
        desktop.fill("#rate", "80")
        expect(desktop.locator("#rate-shown")).to_have_text("251 / s")
        while number(desktop, "#total") < total + 300:
            desktop.wait_for_timeout(100)
        assert 100 < number(desktop, "#messages") < 500
        painted = (
            "canvas => [...canvas.getContext('2d').getImageData(0, 0, 999, 99).data].some(Boolean)"
        )
        for canvas in desktop.locator("canvas").all():
            assert canvas.evaluate(painted)
        keep(desktop, "dashboard-desktop")
        keep(phone, "dashboard-phone")

        # A page that comes later has the past, too.
        messages: list[str] = []
        late = tabs.open(server.url, PHONE, received=messages)
        expect(late.locator("#messages")).to_have_text(re.compile(r"\d"))
        messages = [message for message in messages if message.startswith("{")]
        assert json.loads(messages[0])["uptime"] < 3


def test_permessage_deflate_is_negotiated(tabs: Tabs) -> None:
    with serving("dashboard/server.py") as server:
        page = tabs.open(server.url, PHONE)
        expect(page.locator("#extensions")).to_have_text(re.compile("^permessage-deflate"))


# ---------------------------------------------------------------------------
# The game
# ---------------------------------------------------------------------------


def drop(page: Page, column: int) -> None:
    page.locator("#board button").nth(column).click()


def expect_discs(page: Page, discs: int) -> None:
    expect(page.locator("#board .disc")).to_have_count(discs)


def test_two_play_one_watches_and_a_reload_keeps_the_seat(tabs: Tabs) -> None:
    with serving("connect_four/server.py") as server:
        red = tabs.open(server.url, wait=False)
        keep(red, "connect_four-start")
        red.click("text=Start a game")
        expect(red.locator("#message")).to_contain_text("Send the first link")
        yellow = tabs.open(red.input_value("#join"), PHONE)
        watcher = tabs.open(red.input_value("#watch"))
        expect(red.locator("#watchers")).to_have_text("1 watches")
        expect(red.locator("#message")).to_have_text("Your turn.")
        expect(yellow.locator("#message")).to_have_text("Red’s turn.")

        for page in (yellow, watcher):
            expect(page.locator("#board button:enabled")).to_have_count(0)
        for discs, (page, column) in enumerate([(red, 3), (yellow, 3), (red, 4)], 1):
            drop(page, column)
            for each in (red, yellow, watcher):
                expect_discs(each, discs)
        keep(yellow, "connect_four-phone")

        red.reload()
        expect(red.locator("#red span")).to_have_text("you")
        expect_discs(red, 3)
        # Who comes third by the link to play finds no seat.
        third = tabs.open(red.input_value("#join"))
        expect(third.locator("#message")).to_have_text("Yellow’s turn.")
        expect(third.locator("#links")).to_be_hidden()

        drop(yellow, 4)
        drop(red, 2)
        drop(yellow, 2)
        drop(red, 5)
        expect(red.locator("#message")).to_have_text("You win!")
        expect(watcher.locator("#message")).to_have_text("Red wins.")
        expect(red.locator("#board .four")).to_have_count(4)
        red.wait_for_timeout(700)  # the disc falls
        keep(red, "connect_four-desktop")

        red.click("#again")
        yellow.click("#again")
        expect(yellow.locator("#message")).to_have_text("Your turn.")
        expect_discs(watcher, 0)

        yellow.close()
        expect(red.locator("#yellow span")).to_have_text("away")

        lost = tabs.open(f"{server.url}?join=nowhere", PHONE, wait=False)
        expect(lost.locator("#status")).to_have_text("There is no such game any more")
        expect(lost.locator("text=Start a game")).to_be_visible()


# ---------------------------------------------------------------------------
# A token that a page offers
# ---------------------------------------------------------------------------

#: What a page gets with these subprotocols: the one that was chosen, and the first message.
OFFER = """([url, ...offered]) => new Promise(resolve => {
    const ws = new WebSocket(url, offered);
    ws.onmessage = event => resolve([ws.protocol, event.data]);
    ws.onclose = event => resolve(event.code);
})"""


def test_a_page_gets_in_with_a_token_among_its_subprotocols(browser: Browser) -> None:
    process = subprocess.Popen(
        command("auth/server.py", "--port", "0"), stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1].rstrip("/")
            page = browser.new_page()
            page.goto(url.replace("ws", "http", 1))  # not found, but a page of this server
            door = f"{url}/subprotocol"
            got = page.evaluate(OFFER, [door, "greeting", "bearer.token-of-ada"])
            assert got == ["greeting", "hello ada, you offered a token and 'greeting'"]
            assert page.evaluate(OFFER, [door, "greeting", "bearer.guess"]) == 1006
            page.close()
        finally:
            process.kill()
