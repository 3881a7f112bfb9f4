"""`trio-ws serve` with one process: signals, limits, logs, Unix sockets, TLS."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import trio
import trustme

import trio_ws
from tests.command.cli_helpers import APPLICATION, PATIENCE, running, serving
from trio_ws import (
    ConnectionFailed,
    ConnectionLost,
    ConnectionRejected,
    State,
    open_websocket_url,
)
from trio_ws._command.serve import GARBAGE_THRESHOLDS


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_a_shutdown_in_good_order(tmp_path: Path, how: signal.Signals) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "application") as (command, url):
            async with open_websocket_url(f"{url}who") as ws:
                assert await ws.receive_json() == [None, command.process.pid]
                await ws.send("hello")
                assert await ws.receive() == "hello"
                command.process.send_signal(how)
                assert (await ws.wait_closed()).code == 1001
            assert await command.status() == 0
    output = command.output.splitlines()
    assert [output[0], output[-1]] == ["set up", "tidied up"]
    assert output[2].endswith(f"INFO {how.name}: closing 1 connections")


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", "--grace-period", "inf") as (command, url):
            async with open_websocket_url(f"{url}never") as ws:
                await ws.receive()
                command.process.send_signal(signal.SIGTERM)
                assert (await ws.wait_closed()).code == 1001
                await command.read_until("SIGTERM: closing")
                assert await command.stop(signal.SIGINT) == 130
    assert "SIGINT again: not waiting any longer" in command.output


async def status_of(url: str, path: str) -> int:
    """The status of a page, over a connection of its own."""
    host, _, port = url.removeprefix("ws://").rstrip("/").partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive_some()
        return int(answer.split()[1])


PROBES = ["--ready-path", "/ready", "--health-path", "/health"]


async def test_with_drain_the_first_signal_closes_clients_one_by_one(tmp_path: Path) -> None:
    closed: list[tuple[int, float]] = []

    async def live(url: str, opened: trio.Event) -> None:
        async with open_websocket_url(url) as ws:
            opened.set()
            code = (await ws.wait_closed()).code
            closed.append((code, trio.current_time()))

    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "application", "--drain", "1") as (command, url):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    opened = trio.Event()
                    nursery.start_soon(live, url, opened)
                    await opened.wait()
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("SIGTERM: draining 4 connections")
                with pytest.raises(ConnectionRejected) as caught:
                    async with open_websocket_url(url):
                        pass
                assert caught.value.response.status == 503
                assert caught.value.retry_after == 1
            assert await command.status() == 0
    assert [code for code, _ in closed] == [1012] * 4
    assert closed[-1][1] - closed[0][1] > 0.5
    assert command.output.splitlines()[-1] == "tidied up"


async def test_with_drain_the_second_signal_hurries_and_the_third_ends_it(tmp_path: Path) -> None:
    options = ["--drain", "1000", "--grace-period", "inf"]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, url):
            async with open_websocket_url(f"{url}never") as ws:
                await ws.receive()
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("SIGTERM: draining 1 connections")
                assert ws.state is State.OPEN
                command.process.send_signal(signal.SIGTERM)
                assert (await ws.wait_closed()).code == 1001
                await command.read_until("SIGTERM: closing 1 connections")
                assert await command.stop(signal.SIGINT) == 130
    assert "SIGINT again: not waiting any longer" in command.output


@pytest.mark.parametrize("application", ["handler", "router"])
async def test_readiness_turns_503_as_soon_as_a_drain_begins(
    tmp_path: Path, application: str
) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, application, "--drain", "1000", *PROBES) as (command, url):
            assert await status_of(url, "/ready") == 200
            assert await status_of(url, "/health") == 200
            elsewhere = await status_of(url, "/other")
            assert elsewhere in (404, 426)
            async with open_websocket_url(f"{url}chat") as ws:
                command.process.send_signal(signal.SIGTERM)
                await command.read_until("draining 1 connections")
                assert await status_of(url, "/ready") == 503
                assert await status_of(url, "/health") == 200
                assert await status_of(url, "/other") == elsewhere
                assert ws.state is State.OPEN
            assert await command.status() == 0  # as soon as the only client has left


async def test_one_probe_needs_no_other(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *PROBES[2:]) as (_, url):
            assert await status_of(url, "/health") == 200
            assert await status_of(url, "/ready") == 426


async def test_with_drain_a_signal_interrupts_the_set_up_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    options = ["--port", "0", "--drain", "1000"]
    with trio.fail_after(PATIENCE):
        async with running("serve", "chat:hanging", *options, cwd=tmp_path) as command:
            await command.read_until("setting up")
            assert await command.stop(signal.SIGTERM) == 0


async def test_a_signal_interrupts_the_set_up(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    with trio.fail_after(PATIENCE):
        async with running("serve", "chat:hanging", "--port", "0", cwd=tmp_path) as command:
            await command.read_until("setting up")
            assert await command.stop(signal.SIGTERM) == 0


async def test_limits_and_logs_are_as_asked_for(tmp_path: Path) -> None:
    options = ["--max-message-size", "10", "--origin", "none", "--no-compression", "--access-log"]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options, "--log-level=error") as (command, url):
            with pytest.raises(trio_ws.ConnectionRejected):
                async with open_websocket_url(url, origin="http://example.org"):
                    raise AssertionError("it was let in")
            async with open_websocket_url(url) as ws:
                await ws.send("12345678901")
                with pytest.raises(ConnectionLost):
                    await ws.receive()
                assert "permessage-deflate" not in str(ws.response)
                assert ws.close_reason is not None
                assert ws.close_reason.code == 1009
            assert await command.stop(signal.SIGTERM) == 0
    assert re.search(r' INFO \[\w{8}\] 127.0.0.1:\d+ "GET /" 101, 1009', command.output)
    assert "closing 0 connections" not in command.output


async def test_an_application_that_sees_to_the_log_itself_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import logging\nlogging.basicConfig(format='mine: %(message)s', level='INFO')\n"
        "from chat import handler\n",
        "utf-8",
    )
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    with trio.fail_after(PATIENCE):
        async with running("serve", "loud:handler", "--port", "0", cwd=tmp_path) as command:
            await command.urls()
            assert await command.stop(signal.SIGINT) == 0
    assert command.output.splitlines()[-1] == "mine: SIGINT: closing 0 connections"


@pytest.mark.parametrize(
    ("line", "thresholds"),
    [("", GARBAGE_THRESHOLDS), ("gc.set_threshold(123, 4, 5)", (123, 4, 5))],
    ids=["ours", "its own"],
)
async def test_garbage_is_collected_less_often_unless_the_application_says_otherwise(
    tmp_path: Path, line: str, thresholds: tuple[int, int, int]
) -> None:
    (tmp_path / "tells.py").write_text(
        f"import gc\n{line}\nasync def handler(ws): await ws.send_json(gc.get_threshold())\n",
        "utf-8",
    )
    with trio.fail_after(PATIENCE):
        async with running("serve", "tells:handler", "--port", "0", cwd=tmp_path) as command:
            (url,) = await command.urls()
            async with open_websocket_url(url) as ws:
                assert await ws.receive_json() == list(thresholds)
            assert await command.stop(signal.SIGINT) == 0


async def test_a_unix_socket_is_used_removed_and_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", "--unix", "socket") as (command, _):
            assert "Serving on the Unix socket socket\n" in command.output
            async with running(
                "connect", "ws://localhost", "--unix", str(path), "--wait", "0"
            ) as client:
                await client.write("hello\n")
                await client.read_until("< hello")
                await client.end_input()
                assert await client.status() == 0
            async with running("serve", "chat:handler", "--unix", "socket", cwd=tmp_path) as second:
                assert await second.status() == 1
                assert "cannot listen on socket: Address already in use" in second.output
            assert await command.stop(signal.SIGTERM) == 0
    assert not path.exists()


async def test_a_unix_socket_that_is_another_s_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", "--unix", "socket") as (command, _):
            path.unlink()
            with socket.socket(socket.AF_UNIX) as another:
                another.bind(str(path))
                assert await command.stop(signal.SIGTERM) == 0
                assert path.exists()


async def test_tls_is_served_and_checked_unless_told_otherwise(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "server.pem")
    )
    with trio.fail_after(PATIENCE):
        options = ["--certfile", "server.pem", "--host", "localhost"]
        async with serving(tmp_path, "handler", *options) as (command, url):
            assert url.startswith("wss://localhost:")
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            async with open_websocket_url(url, ssl_context=context) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            for options, status in (
                (["--cafile", str(tmp_path / "ca.pem")], 0),
                (["--insecure"], 0),
                ([], 1),
            ):
                async with running("connect", url, "--wait", "0", *options) as client:
                    await client.end_input()
                    assert await client.status() == status, client.output
            assert "CERTIFICATE_VERIFY_FAILED" in client.output
            assert await command.stop(signal.SIGTERM) == 0


async def test_with_an_authority_of_clients_each_has_to_show_a_certificate(tmp_path: Path) -> None:
    ours, theirs = issue(tmp_path, "localhost"), trustme.CA()
    theirs.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    options = ["--certfile", "server.pem", "--client-ca", "clients.pem", "--host", "localhost"]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, url):
            assert await gets_in(url, trusting(ours, theirs))
            assert not await gets_in(url, trusting(ours, trustme.CA()))
            assert not await gets_in(url, trusting(ours))
            assert await command.stop(signal.SIGTERM) == 0


TELLING = """
async def handler(ws):
    await ws.send_json([ws.subprotocol, ws.remote_address[0], ws.request.scheme])
"""


LISTENING = """
async def handler(ws):
    async for _ in ws:
        pass
"""


async def test_a_client_that_is_too_fast_is_closed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "listens.py").write_text(LISTENING, "utf-8")
    options = ("--max-messages-per-second", "2", "--on-rate-limit", "close")
    where = ("--host", "127.0.0.1", "--port", "0")
    with trio.fail_after(PATIENCE):
        async with running("serve", "listens:handler", *where, *options, cwd=tmp_path) as command:
            (url,) = await command.urls()
            async with open_websocket_url(url) as ws:
                for _ in range(3):
                    await ws.send("again")
                reason = await ws.wait_closed()
                assert reason.reason == "too fast: max_messages_per_second is 2"
            assert await command.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "headers", "told"),
    [
        (
            ["--trusted-proxy", "192.0.2.0/24", "--trusted-proxy", "127.0.0.1"],
            {"X-Forwarded-For": "198.51.100.7, 192.0.2.1", "X-Forwarded-Proto": "https"},
            [None, "198.51.100.7", "wss"],
        ),
        (
            ["--trusted-proxy", "127.0.0.1", "--proxy-header", "Forwarded"],
            {"X-Forwarded-For": "192.0.2.2", "Forwarded": "for=198.51.100.7"},
            [None, "198.51.100.7", "ws"],
        ),
        (
            ["--subprotocol", "chat.v2", "--subprotocol", "chat.v1"],
            {},
            ["chat.v2", "127.0.0.1", "ws"],
        ),
    ],
    ids=["X-Forwarded-For", "Forwarded", "subprotocols"],
)
async def test_proxies_and_subprotocols_are_as_asked_for(
    tmp_path: Path, options: list[str], headers: dict[str, str], told: list[str | None]
) -> None:
    (tmp_path / "tells.py").write_text(TELLING, "utf-8")
    where = ("--host", "127.0.0.1", "--port", "0")
    with trio.fail_after(PATIENCE):
        async with running("serve", "tells:handler", *where, *options, cwd=tmp_path) as command:
            (url,) = await command.urls()
            async with open_websocket_url(
                url, headers=headers, subprotocols=["chat.v1", "chat.v2"]
            ) as ws:
                assert await ws.receive_json() == told
            assert await command.stop(signal.SIGTERM) == 0


CHECKED = """
import contextlib

from chat import handler

@contextlib.asynccontextmanager
async def application():
    raise OSError("nothing is set up for a check")
    yield handler
"""


async def test_a_check_loads_all_and_listens_on_nothing(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(APPLICATION, "utf-8")
    (tmp_path / "checked.py").write_text(CHECKED, "utf-8")
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "server.pem")
    )
    (tmp_path / "empty").touch()

    async def check(*arguments: str) -> tuple[int, str]:
        async with running("serve", *arguments, "--check", cwd=tmp_path) as command:
            return await command.status(), command.output

    with socket.socket() as taken, trio.fail_after(PATIENCE):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"--port={taken.getsockname()[1]}"
        fine = ["checked:application", "--host=127.0.0.1", port, "--certfile=server.pem"]
        assert await check(*fine) == (0, "")
        assert await check(*fine, "--workers=2") == (0, "")
        for arguments, status, line in (
            ([*fine, "--client-ca=empty"], 1, "trio-ws: cannot use the authorities in empty: "),
            (["checked:application", "--certfile=empty"], 1, "trio-ws: cannot use the certificate"),
            (["checked:other"], 2, "trio-ws: 'checked' has no 'other'"),
        ):
            code, output = await check(*arguments)
            assert code == status
            assert output.startswith(line)
            assert output.count("\n") == 1


# ---------------------------------------------------------------------------
# Certificates that are renewed
# ---------------------------------------------------------------------------


def issue(directory: Path, host: str) -> trustme.CA:
    """Put a new certificate where the server looks for it, and give who signed it."""
    authority = trustme.CA()
    pem = authority.issue_cert(host).private_key_and_cert_chain_pem
    pem.write_to_path(str(directory / "server.pem"))
    return authority


def trusting(authority: trustme.CA, client: trustme.CA | None = None) -> ssl.SSLContext:
    """A client's context; with a `client` authority, it has a certificate of that."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client is not None:
        client.issue_cert("ada@example.org").configure_cert(context)
    return context


async def gets_in(url: str, context: ssl.SSLContext) -> bool:
    try:
        async with open_websocket_url(url, ssl_context=context) as ws:
            await ws.send("hello")
            return await ws.receive() == "hello"
    except ConnectionFailed:
        return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])  # no name is sent for an address
async def test_sighup_renews_the_certificate_and_a_bad_one_changes_nothing(
    tmp_path: Path, host: str, version: ssl.TLSVersion
) -> None:
    first = issue(tmp_path, host)
    context = trusting(first)
    context.maximum_version = version
    options = ["--certfile", "server.pem", "--host", host]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, url):
            async with open_websocket_url(url, ssl_context=context) as ws:
                second = issue(tmp_path, host)
                for _ in range(2):
                    command.process.send_signal(signal.SIGHUP)
                    await command.read_until("INFO SIGHUP: new connections get the certificates of")
                renewed = trusting(second)
                renewed.maximum_version = version
                assert await gets_in(url, renewed)
                assert not await gets_in(url, context)

                # A certificate with the key of another is the hard case: the first half is fine.
                key = trustme.CA().issue_cert(host).private_key_pem.bytes()
                (tmp_path / "server.pem").write_bytes(first.cert_pem.bytes() + key)
                command.process.send_signal(signal.SIGHUP)
                await command.read_until(
                    "ERROR SIGHUP: cannot use the certificate server.pem: .*; the certificates in "
                    "use stay$"
                )
                assert await gets_in(url, renewed)
                await ws.send("still here")
                assert await ws.receive() == "still here"
            assert await command.stop(signal.SIGTERM) == 0


async def test_sighup_renews_the_authorities_of_clients(tmp_path: Path) -> None:
    ours, before, after = issue(tmp_path, "localhost"), trustme.CA(), trustme.CA()
    before.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    options = ["--certfile", "server.pem", "--client-ca", "clients.pem", "--host", "localhost"]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, url):
            assert await gets_in(url, trusting(ours, before))
            after.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
            command.process.send_signal(signal.SIGHUP)
            await command.read_until("SIGHUP: new connections")
            assert await gets_in(url, trusting(ours, after))
            assert not await gets_in(url, trusting(ours, before))
            assert not await gets_in(url, trusting(ours))
            assert await command.stop(signal.SIGTERM) == 0


async def test_sighup_gives_workers_the_new_certificate(tmp_path: Path) -> None:
    first = issue(tmp_path, "localhost")
    options = ["--certfile", "server.pem", "--host", "localhost", "--workers", "2"]
    with trio.fail_after(PATIENCE):
        async with serving(tmp_path, "handler", *options) as (command, url):
            assert await gets_in(url, trusting(first))
            second = issue(tmp_path, "localhost")
            command.process.send_signal(signal.SIGHUP)
            await command.read_until("all workers are replaced")
            assert await gets_in(url, trusting(second))
            assert not await gets_in(url, trusting(first))
            assert await command.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "app:handler", "--port=0", "--certfile=server.pem"],
        ["listen"],
        ["bench", "ws://127.0.0.1:1"],
    ],
)
async def test_a_line_that_cannot_be_printed_ends_it_at_once_and_is_said_in_one_line(
    arguments: list[str], tmp_path: Path
) -> None:
    issue(tmp_path, "localhost")
    (tmp_path / "app.py").write_text(APPLICATION)
    full = os.open("/dev/full", os.O_WRONLY)
    with trio.fail_after(PATIENCE), os.fdopen(full, "wb"):
        async with running(
            *arguments, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE
        ) as command:
            assert command.process.stderr is not None
            said = b"".join([piece async for piece in command.process.stderr]).decode()
            assert await command.process.wait() == 1
    assert said == "trio-ws: cannot write the output: No space left on device\n"
