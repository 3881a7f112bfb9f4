"""The words of the extension, and what compresses, for tests of compression."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from trio_ws._protocol.compressors import forget

RSV1 = 4
NAME = "permessage-deflate"

ENGINES = ("isal", "zlib")


@contextmanager
def only(engine: str) -> Iterator[None]:
    """Compress with it, whatever else is installed."""
    isal = sys.modules.get("isal")
    if engine != "isal":
        sys.modules["isal"] = None  # type: ignore[assignment] # which makes its import fail
    forget()
    try:
        yield
    finally:
        sys.modules.pop("isal", None)
        if isal is not None:
            sys.modules["isal"] = isal
        forget()
