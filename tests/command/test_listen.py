"""`trio-ws listen`: what it prints, what clients get, and how it ends."""

from __future__ import annotations

import signal
import ssl
import subprocess
from pathlib import Path

import pytest
import trio
import trustme

from tests.command.cli_helpers import PATIENCE, run, running
from trio_ws import open_websocket_url


async def test_it_echoes_and_prints_each_line_with_the_number_of_the_client() -> None:
    with trio.fail_after(PATIENCE):
        async with running("listen", "--json", "--subprotocol", "x") as command:
            (url, *_) = await command.urls()
            async with (
                open_websocket_url(f"{url}a%1Bb", subprotocols=["x"]) as one,
                open_websocket_url(url) as two,
            ):
                assert one.subprotocol == "x"
                for ws, message in (one, "\x1b[2J\n"), (two, '{"a": 1}'), (one, b"\x00"):
                    await ws.send(message)
                    assert await ws.receive() == message
                await one.aclose(4000, "done")
                await command.read_until("closed:")
            await command.read_until("closed:")
            assert await command.stop(signal.SIGINT) == 0
    assert sorted(command.output.splitlines()[1:]) == sorted(
        [
            r"1 connected to /a\x1bb",
            "2 connected to /",
            r"1 < \x1b[2J",
            "1 < ",
            "2 < {",
            '2 <   "a": 1',
            "2 < }",
            "1 < (1 bytes) 00",
            "1 closed: 4000, closed by the peer: done",
            "2 closed: 1000 (normal closure), closed by the peer",
        ]
    )


async def test_it_sends_a_message_to_all_other_clients() -> None:
    with trio.fail_after(PATIENCE):
        async with running("listen", "--broadcast") as command:
            (url, *_) = await command.urls()
            async with open_websocket_url(url) as one, open_websocket_url(url) as two:
                await command.read_until("2 connected")
                await one.send("hello")
                assert await two.receive() == "hello"
                await two.send("welcome")
                assert await one.receive() == "welcome"  # and not its own
            assert await command.stop(signal.SIGTERM) == 0


async def test_it_only_prints_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    chain = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    chain.write_to_path(tmp_path / "chain.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with trio.fail_after(PATIENCE):
        async with running(
            *("listen", "--print", "--times", "--certfile", "chain.pem"), cwd=tmp_path
        ) as command:
            (url, *_) = await command.urls()
            assert url.startswith("wss://localhost:")
            async with open_websocket_url(url, ssl_context=context) as ws:
                await ws.send("hello")
                await command.read_until(r"^[0-9:.]{12} 1 < hello$")
                with pytest.raises(trio.WouldBlock):
                    ws.receive_nowait()
            assert await command.stop(signal.SIGTERM) == 0


async def test_it_ends_when_nobody_reads_what_it_prints() -> None:
    with trio.fail_after(PATIENCE):
        async with running("listen", stderr=subprocess.DEVNULL) as command:
            (url, *_) = await command.urls()
            assert command.process.stdout is not None
            await command.process.stdout.aclose()
            async with open_websocket_url(url) as ws:
                await ws.send("hello")
                await ws.wait_closed()
            assert await command.process.wait() == 1


def test_a_key_without_a_certificate_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("listen", "--keyfile", "key.pem") == 2
    assert "--keyfile needs --certfile" in capsys.readouterr().err
