"""The words of the extension, for tests of compression."""

from __future__ import annotations

RSV1 = 4
NAME = "permessage-deflate"
