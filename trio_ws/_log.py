"""Log records that say which connection they are about."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, TypeAlias, cast

#: Where records go: see the option `logger`.
LoggerLike: TypeAlias = logging.Logger | logging.LoggerAdapter[logging.Logger]


class ConnectionLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts a connection's id before each message, and on each record as `connection_id`.

    Logging never raises. A handler or a filter may, because a disk is full; its exception would
    otherwise end the tasks behind a connection, and with them the server. It is written to stderr
    instead, as the logging module does for handlers that keep to its rules.

    The application's adapters say what they add, and this one adds to that. If it called them to
    log, their `extra` would take the place of its own.
    """

    def __init__(self, logger: LoggerLike, connection_id: str) -> None:
        adapters: tuple[logging.LoggerAdapter[Any], ...] = ()
        while isinstance(logger, logging.LoggerAdapter):
            adapters += (logger,)
            logger = cast("LoggerLike", logger.logger)
        super().__init__(logger)
        self._adapters = adapters
        self.connection_id = connection_id
        #: Whether each frame is to be logged. Looked up once, for speed: a level that is changed is
        #: for connections opened later.
        self.shows_frames: bool = logger.isEnabledFor(logging.DEBUG)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the caller's line, not this one
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc()

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        for adapter in self._adapters:
            msg, kwargs = adapter.process(msg, kwargs)
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "connection_id": self.connection_id}
        return f"[{self.connection_id}] {msg}", kwargs


def new_connection_id() -> str:
    """Eight hexadecimal digits: enough to tell the connections of one log apart."""
    return os.urandom(4).hex()
