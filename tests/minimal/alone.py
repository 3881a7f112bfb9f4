"""The package with what it requires and nothing more, at its oldest.

``make minimal`` makes the environment and runs this; ``make test`` does not collect it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import trio

import trio_ws
import trio_ws.backplane
import trio_ws.live
import trio_ws.metrics
import trio_ws.testing
from tests.helpers import HOST, echo, open_server
from tests.setup.oldest import ROOT, oldest

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = [trio_ws, trio_ws.backplane, trio_ws.live, trio_ws.metrics, trio_ws.testing]


def test_no_extra_is_installed() -> None:
    for requirements in EXTRAS.values():
        for requirement in requirements:
            with pytest.raises(PackageNotFoundError):
                version(requirement.partition(">=")[0])


def test_what_is_required_is_installed_at_its_oldest() -> None:
    for pinned in oldest()[: len(PROJECT["dependencies"])]:
        name, _, wanted = pinned.partition("==")
        assert f"{version(name)}.".startswith(f"{wanted}."), name


def test_every_public_name_can_be_imported() -> None:
    packages = {path.parent.name for path in (ROOT / "trio_ws").glob("[!_]*/__init__.py")}
    assert {module.__name__ for module in MODULES} == {
        "trio_ws",
        *(f"trio_ws.{name}" for name in packages),
    }
    for module in MODULES:
        assert {name for name in module.__all__ if not hasattr(module, name)} == set()


# What each extra's absence says…


async def through_socks() -> None:
    async with trio_ws.open_websocket_url("ws://server.example/", proxy="socks5://127.0.0.1:9"):
        pass


async def with_metrics() -> None:
    async with trio_ws.metrics.open_metrics():
        pass


NEEDED: dict[str, Callable[[], object]] = {
    "metrics": lambda: trio.run(with_metrics),
    "proxy": lambda: trio.run(through_socks),
    "redis": lambda: trio_ws.backplane.RedisBackplane("redis://localhost"),
    "routing": trio_ws.Router,
}


@pytest.mark.parametrize("extra", NEEDED)
def test_what_needs_an_extra_names_it(extra: str) -> None:
    with pytest.raises(ImportError, match=rf'pip install "trio-ws\[{extra}\]"'):
        NEEDED[extra]()


def test_the_other_extras_are_of_things_that_work_without_them() -> None:
    assert set(EXTRAS) - set(NEEDED) == {"cli", "speedups"}


# What works…


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
async def test_messages_go_both_ways_compressed_and_masked(size: int) -> None:
    async with open_server(echo, max_message_size=size) as server:
        url = f"ws://{HOST}:{server.port}/"
        async with trio_ws.open_websocket_url(url, max_message_size=size) as ws:
            for message in ("ä" * (size // 2), os.urandom(size)):
                await ws.send(message)
                assert await ws.receive() == message


def trio_ws_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trio_ws", *arguments]
    return subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, timeout=30)


def test_the_command_line_serves_and_says_what_metrics_need(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("async def handler(ws):\n    pass\n")
    serve = ("serve", "app:handler", "--check")
    assert trio_ws_command(*serve, cwd=tmp_path).returncode == 0
    without = trio_ws_command(*serve, "--metrics", "9464", cwd=tmp_path)
    assert without.returncode != 0
    assert 'pip install "trio-ws[metrics]"' in without.stderr
