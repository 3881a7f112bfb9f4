"""Every example, run as a user runs it: one command each."""

from __future__ import annotations

import ast
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.examples.scripts import EXAMPLES, PATIENCE, Script, output_of, running, serving
from trio_ws import ConnectionFailed, Router, open_websocket_url
from trio_ws._command.application import load_application


async def read_page_url(server: Script) -> None:
    assert re.fullmatch(r"Open https?://localhost:\d+/", await server.read_line())


async def test_hello() -> None:
    with trio.fail_after(PATIENCE):
        async with serving("hello/server.py") as (server, url):
            await read_page_url(server)
            lines = await output_of("hello/client.py", "--url", url, "--name", "Ada")
            assert lines == [">>> 'Ada'", "<<< 'Hello Ada!'"]
            assert await server.interrupt() == ["<<< 'Ada'", ">>> 'Hello Ada!'"]


async def test_echo() -> None:
    with trio.fail_after(PATIENCE):
        async with serving("echo/server.py") as (server, url):
            *answers, ping = await output_of("echo/client.py", "--url", url)
            assert answers == [
                "text:   Hello world!",
                r"binary: b'\x00\x01\x02'",
                "JSON:   {'answer': 42}",
            ]
            assert ping.startswith("a ping takes ")
            assert await server.read_line() == "/: 1000 (normal closure), closed by the peer"
            assert await server.interrupt(signal.SIGTERM) == []


async def test_secure(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        await output_of("secure/make_certificate.py", "--directory", str(tmp_path))
        certificate, authority = tmp_path / "server.pem", tmp_path / "ca.pem"
        assert certificate.stat().st_mode & 0o077 == 0

        async with serving("secure/server.py", "--certificate", str(certificate)) as (server, url):
            await read_page_url(server)
            assert url.startswith("wss://")
            lines = await output_of("secure/client.py", "--url", url, "--authority", str(authority))
            assert lines == ["<<< 'Hello trio!'"]
            assert await server.interrupt() == ["<<< 'trio'", ">>> 'Hello trio!'"]


async def test_a_certificate_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        for name in ("ours", "theirs"):
            (tmp_path / name).mkdir()
            await output_of("secure/make_certificate.py", "--directory", str(tmp_path / name))
        certificate = str(tmp_path / "theirs" / "server.pem")
        authority = str(tmp_path / "ours" / "ca.pem")

        async with serving("secure/server.py", "--certificate", certificate) as (server, url):
            await read_page_url(server)
            async with running(
                "secure/client.py", "--url", url, "--authority", authority
            ) as client:
                assert client.process.stdout is not None
                text = "".join([data.decode() async for data in client.process.stdout])
                assert await client.process.wait() == 1
            assert "ConnectionFailed" in text
            assert "CERTIFICATE_VERIFY_FAILED" in text
            assert await server.interrupt() == []


@pytest.fixture
async def certificates(tmp_path: Path) -> dict[str, str]:
    """The files of make_certificate.py."""
    await output_of("secure/make_certificate.py", "--directory", str(tmp_path))
    return {name: str(tmp_path / f"{name}.pem") for name in ("server", "client", "ca")}


async def test_a_client_shows_its_certificate_and_reads_that_of_the_server(
    certificates: dict[str, str],
) -> None:
    server_files = ["--certificate", certificates["server"], "--authority", certificates["ca"]]
    client_files = ["--certificate", certificates["client"], "--authority", certificates["ca"]]
    with trio.fail_after(PATIENCE):
        async with serving("secure/mutual_server.py", *server_files) as (server, url):
            await server.read_line()
            tls, greeting = await output_of("secure/mutual_client.py", "--url", url, *client_files)
            assert tls.startswith("TLSv1.3, (('DNS', 'localhost'), ")
            assert greeting == "Hello Ada!"
            trusting = ssl.create_default_context(cafile=certificates["ca"])
            with pytest.raises(ConnectionFailed, match="CERTIFICATE_REQUIRED"):
                async with open_websocket_url(url, ssl_context=trusting):
                    pass
            assert await server.interrupt(signal.SIGTERM) == []


async def test_a_certificate_is_read_again_on_sighup_and_a_wrong_one_is_not_used(
    certificates: dict[str, str],
) -> None:
    def presenting() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=certificates["ca"])
        context.load_cert_chain(certificates["client"])
        return context

    async def server_certificate(url: str, context: ssl.SSLContext) -> object:
        async with open_websocket_url(url, ssl_context=context) as ws:
            assert ws.tls is not None
            assert await ws.receive() == "Hello Ada!"
            return ws.tls.getpeercert()

    file = trio.Path(certificates["server"])
    server_files = ["--certificate", str(file), "--authority", certificates["ca"]]
    with trio.fail_after(PATIENCE):
        async with serving("secure/mutual_server.py", *server_files) as (server, url):
            assert await server.read_line() == f"Process {server.process.pid}"
            before = presenting()
            first = await server_certificate(url, before)
            async with open_websocket_url(url, ssl_context=before) as old:
                certificate = await file.read_text("utf-8")
                key_alone, _, _ = certificate.partition("-----BEGIN CERTIFICATE")
                await file.write_text(key_alone, "utf-8")
                server.process.send_signal(signal.SIGHUP)
                line = await server.read_line()
                assert line.startswith("The certificate in use stays: ")
                assert await server_certificate(url, before) == first
                await output_of("secure/make_certificate.py", "--directory", str(file.parent))
                server.process.send_signal(signal.SIGHUP)
                assert await server.read_line() == "New connections get the new certificate"
                second = await server_certificate(url, presenting())
                assert second != first
                assert await old.ping() > 0
            assert await server.interrupt(signal.SIGTERM) == []


async def test_a_server_that_waits_for_its_client_ends_quietly() -> None:
    with trio.fail_after(PATIENCE):
        async with serving("hello/server.py") as (server, url):
            await read_page_url(server)
            stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2].strip("/")))
            async with stream:  # connected, and in the middle of the handshake
                assert await server.interrupt() == []


async def test_auth() -> None:
    with trio.fail_after(PATIENCE):
        async with serving("auth/server.py") as (server, url):
            assert await output_of("auth/client.py", "--url", url) == [
                "refused with 401: A user name and a password are needed.",
                "hello ada, you know the password",
                "refused with 401: A token is needed.",
                "hello ada, you have a token",
                "refused with 403: Log in first.",
                "hello ada, you are logged in",
                "refused with 403: Offer a valid token.",
                "hello ada, you offered a token and 'greeting'",
                "closed with 1008: send a valid token first",
                "hello ada, you have introduced yourself",
            ]
            assert await server.interrupt(signal.SIGTERM) == []


async def test_site() -> None:
    with trio.fail_after(PATIENCE):
        async with serving("site/server.py") as (server, url):
            await read_page_url(server)
            lobby = f"{url}rooms/lobby"
            page = url.rstrip("/").replace("ws", "http", 1)

            async def curl(*arguments: str) -> str:
                command = ["curl", "-sS", *arguments]
                return (await trio.run_process(command, capture_stdout=True)).stdout.decode()

            assert "<a href=/rooms/lobby/>" in await curl(f"{page}/")
            assert "<title>&lt;b&gt;</title>" in await curl(f"{page}/rooms/%3Cb%3E/")
            assert "new WebSocket" in await curl(f"{page}/static/chat.js")
            async with (
                open_websocket_url(f"{lobby}/ws") as ada,
                open_websocket_url(f"{lobby}/ws") as bob,
            ):
                await ada.send("hi")
                assert [await ada.receive(), await bob.receive()] == ["hi", "hi"]
                as_json = ["-H", "Content-Type: application/json", "-d", '"from curl"']
                told = await curl(*as_json, f"{page}/rooms/lobby/publish")
                assert told == '{"told": 2}'
                assert [await ada.receive(), await bob.receive()] == ["from curl"] * 2
                assert await curl(f"{page}/health") == '{"status": "ok", "rooms": 1}'
            assert await server.interrupt(signal.SIGTERM) == []


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (
            "consumer",
            {"stored kitchen: 19.5 °C", "stored kitchen: 20.0 °C", "stored cellar: 11.0 °C"},
        ),
        (
            "producer",
            {
                "news 1",
                "news 2",
                "news 3",
                "the producer has ended: 1000 (normal closure), closed by the peer",
            },
        ),
        (
            "both",
            {
                "Bob hears 'Alice: is anybody here?'",
                "Alice hears 'Alice: is anybody here?' and 'Bob: I am!'",
            },
        ),
        (
            "broadcast",
            {
                "Alice sees {'value': 0, 'users': 1}",
                "Alice sees {'value': 0, 'users': 2}",
                "Bob sees {'value': 1, 'users': 2}",
                "Alice sees {'value': 1, 'users': 2}",
                "Alice sees {'value': 1, 'users': 1}",
            },
        ),
        (
            "presence",
            {
                "Alice sees {'here': ['alice'], 'new': ['alice']}",
                "Bob sees {'here': ['alice', 'bob'], 'new': ['alice', 'bob']}",
                "Alice sees {'here': ['alice', 'bob'], 'new': ['bob']}",
                "Alice sees {'here': ['alice'], 'new': []}",
            },
        ),
        (
            "catch_up",
            {f"It is {hour} o'clock." for hour in ("one", "two", "three", "five", "six", "seven")}
            | {"(there was more)"},
        ),
        (
            "reconnect",
            {
                f"It is {hour} o'clock."
                for hour in ("one", "two", "three", "four", "five", "six", "seven")
            },
        ),
        (
            "follow",
            {
                f"It is {hour} o'clock."
                for hour in ("one", "two", "three", "four", "five", "six", "seven")
            }
            | {"(from here on)"},
        ),
    ],
)
async def test_patterns(script: str, lines: set[str]) -> None:
    with trio.fail_after(PATIENCE):
        printed = await output_of(f"patterns/{script}.py")
    assert len(printed) == len(lines)
    assert set(printed) == lines


@pytest.mark.parametrize(
    "folder", ["live", "sync_time", "chat", "quart_tutorial", "dashboard", "connect_four", "site"]
)
async def test_applications_are_found_by_the_command_line(folder: str) -> None:
    application = load_application(f"examples.{folder}.server:application")
    async with application() as handler:
        assert isinstance(handler, Router)


@pytest.mark.parametrize(("folder", "tests"), [("testing", 11), ("quart_tutorial", 9)])
async def test_examples_of_tests(folder: str, tests: int) -> None:
    command = [sys.executable, "-X", "dev", "-m", "pytest", "-p", "no:cacheprovider", folder]
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            command, cwd=EXAMPLES, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    text = result.stdout.decode()
    assert result.returncode == 0, text
    assert f"{tests} passed" in text, text


def test_every_script_says_what_it_is_and_can_be_imported() -> None:
    here = {"hello", "echo", "secure", "patterns", "counter", "testing", "auth", "site", "deploy"}
    here |= {"recipes", "live", "files", "tutorial"}
    of_pages = {"show_time", "sync_time", "chat", "quart_tutorial", "dashboard", "connect_four"}
    scripts = sorted(EXAMPLES.rglob("*.py"))
    assert {script.relative_to(EXAMPLES).parts[0] for script in scripts} == here | of_pages
    for script in scripts:
        module = ast.parse(script.read_text("utf-8"))
        assert ast.get_docstring(module), script
        if script.name.startswith(("test_", "__")):  # pytest runs it, or nobody
            continue
        if script.match("tutorial/*/app.py"):  # `trio-ws serve` runs it
            continue
        names = {
            node.name
            for node in module.body
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        assert "main" in names, script
        assert ast.unparse(module.body[-1]).startswith("if __name__ == '__main__':"), script
