"""Log records that say which connection they are about."""

from __future__ import annotations

import logging
import re

import pytest

from trio_ws._log import ConnectionLogger, new_connection_id


def test_a_record_names_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    logger = ConnectionLogger(logging.getLogger("trio_ws.test"), "0123abcd")
    logger.warning("%d things", 3)
    [record] = caplog.records
    assert record.getMessage() == "[0123abcd] 3 things"
    assert vars(record)["connection_id"] == "0123abcd"


def test_connection_ids_are_eight_digits_and_differ() -> None:
    ids = {new_connection_id() for _ in range(10)}
    assert len(ids) == 10
    assert all(re.fullmatch("[0-9a-f]{8}", each) for each in ids)
