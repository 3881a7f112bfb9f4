"""Log records that say which connection they are about."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from typing import Any


class ConnectionLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts a connection's id before each message, and on each record as `connection_id`."""

    def __init__(self, logger: logging.Logger, connection_id: str) -> None:
        super().__init__(logger)
        self.connection_id = connection_id

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {"connection_id": self.connection_id}
        return f"[{self.connection_id}] {msg}", kwargs


def new_connection_id() -> str:
    """Eight hexadecimal digits: enough to tell the connections of one log apart."""
    return os.urandom(4).hex()
