"""Log records that say which connection they are about."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from tests.helpers import open_server
from trio_ws import WebSocket, open_websocket_url
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
