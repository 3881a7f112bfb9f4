"""How a Python peer says what it sees; see `tests.interop.processes`."""

from __future__ import annotations

import json
import sys


def report(event: str, **details: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()
