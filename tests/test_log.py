"""Log records that say which connection they are about."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import open_server
from trio_ws import JSONFormatter, WebSocket, open_websocket_url
from trio_ws._log import ConnectionLogger, new_connection_id


def test_a_record_names_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    logger = ConnectionLogger(logging.getLogger("trio_ws.test"), "0123abcd")
    logger.warning("%d things", 3)
    [record] = caplog.records
    assert record.getMessage() == "[0123abcd] 3 things"
    assert vars(record)["connection_id"] == "0123abcd"
    assert record.filename == "test_log.py"
    logger.log(logging.ERROR, "%s", "from where it was called", stacklevel=1)
    assert caplog.records[1].funcName == "test_a_record_names_its_connection"


class Tenant(logging.LoggerAdapter[Any]):
    """Adds to each record, and to its text, as applications do."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "tenant": 7}
        return f"<{msg}>", kwargs


async def test_an_adapter_adds_to_the_records_of_connections_and_their_id_stays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    plain = logging.LoggerAdapter(logging.getLogger("mine"), {"service": "chat"})

    async def handler(websocket: WebSocket) -> None:
        ids.append(websocket.id)
        raise RuntimeError("as asked")

    for adapter, added in (
        (plain, {"service": "chat"}),
        (Tenant(logging.getLogger("mine")), {"tenant": 7}),
        (Tenant(plain), {"service": "chat"}),  # the inner one replaces what there is
    ):
        caplog.clear()
        ids: list[str] = []
        async with open_server(handler, logger=adapter) as server:
            async with open_websocket_url(server.urls[0], logger=adapter) as websocket:
                await websocket.wait_closed()
        error, access = [record for record in caplog.records if record.name == "mine"]
        for record in (error, access):
            assert vars(record).items() >= {**added, "connection_id": ids[0]}.items()
        mark = "<" if isinstance(adapter, Tenant) else ""
        assert error.getMessage().startswith(f"[{ids[0]}] {mark}the handler failed: ")
        assert error.filename == "handlers.py"


def test_records_become_lines_of_json() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONFormatter())
    logger = logging.Logger("trio_ws.test")  # noqa: LOG001 - of nobody else
    logger.addHandler(handler)

    extra = {"tenant": 7, "level": "theirs", "where": Path("a"), "odd": math.nan, "tags": ["b"]}
    ConnectionLogger(logging.LoggerAdapter(logger, extra), "0123abcd").warning("%d\n things", 3)
    logger.error("alone", stack_info=True)
    try:
        raise RuntimeError("as asked")
    except RuntimeError:
        logger.exception("failed: \ud800")

    first, alone, failed = [json.loads(line) for line in written.getvalue().splitlines()]
    assert list(first) == [
        *("time", "level", "logger", "message", "process"),
        *("tenant", "where", "odd", "tags", "connection_id"),
    ]
    assert datetime.fromisoformat(first.pop("time")).tzinfo is UTC
    assert first == {
        "level": "WARNING",
        "logger": "trio_ws.test",
        "message": "3\n things",
        "process": os.getpid(),
        "connection_id": "0123abcd",
        "tenant": 7,
        "where": "a",
        "odd": "nan",
        "tags": ["b"],
    }
    assert "connection_id" not in alone
    assert alone["stack"].startswith("Stack (most recent call last):")
    assert failed["message"] == "failed: \ud800"
    assert failed["exception"].endswith("RuntimeError: as asked")


class BrokenHandler(logging.Handler):
    """Leaves its errors to whoever logs, which logging does not ask of a handler but allows."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no space left on device")


@pytest.fixture
def broken_logger() -> logging.Logger:
    logger = logging.Logger("broken", logging.DEBUG)  # noqa: LOG001 - of nobody else
    logger.addHandler(BrokenHandler())
    return logger


def test_a_handler_that_raises_is_told_on_stderr_as_logging_tells_it(
    broken_logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logger = ConnectionLogger(broken_logger, "0123abcd")
    logger.error("lost")
    assert "OSError: no space left on device" in capsys.readouterr().err
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logger.error("lost")
    assert not capsys.readouterr().err
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    logger.error("lost")


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_a_server_goes_on_where_nothing_can_be_logged(
    broken_logger: logging.Logger, level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_logger.setLevel(level)

    async def handler(websocket: WebSocket) -> None:
        if await websocket.receive() == "fail":
            raise RuntimeError("as asked")
        await websocket.send("fine")

    async with open_server(handler, logger=broken_logger) as server:
        for message, code in (("fail", 1011), ("succeed", 1000), ("fail", 1011), ("succeed", 1000)):
            async with open_websocket_url(server.urls[0]) as websocket:
                await websocket.send(message)
                reason = await websocket.wait_closed()
                assert reason.code == code
    assert "OSError" in capsys.readouterr().err


def test_connection_ids_are_eight_digits_and_differ() -> None:
    ids = {new_connection_id() for _ in range(10)}
    assert len(ids) == 10
    assert all(re.fullmatch("[0-9a-f]{8}", each) for each in ids)
