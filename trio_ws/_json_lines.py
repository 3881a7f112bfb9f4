"""Log records as lines of JSON, for what collects logs.

This module owns the names of the fields. It knows of connections only that records have their id.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Final, final

#: What every record has. Anything else was put there by somebody who logs.
_OF_ALL: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


@final
class JSONFormatter(logging.Formatter):
    """A formatter of the module `logging`: each record becomes one line of JSON.

    ==================== ===========================================================
    ``time``             when, in UTC, as in ``2026-01-02T03:04:05.678+00:00``
    ``level``            ``INFO``, for example
    ``logger``           the name of the logger
    ``message``          the text, without the connection's id
    ``process``          the number of the process, to tell workers apart
    ``connection_id``    `WebSocket.id`, if the record is about a connection
    ``exception``        the traceback, if there is one
    ``stack``            the stack, if it was asked for
    ==================== ===========================================================

    What the `extra` of a record or of a `logging.LoggerAdapter` adds is a field, too, unless it has
    one of these names. A value that is not JSON is there as its `str`.
    """

    def format(self, record: logging.LogRecord) -> str:
        added = {name: value for name, value in vars(record).items() if name not in _OF_ALL}
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().removeprefix(f"[{added.get('connection_id')}] "),
            "process": record.process,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        for name, value in added.items():
            line.setdefault(name, _as_json(value))
        return json.dumps(line)


def _as_json(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value
