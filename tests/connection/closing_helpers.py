"""x"""

from __future__ import annotations

import pytest

from tests.helpers import open_client_with_raw_server, open_server_with_raw_client

BOTH_SIDES = pytest.mark.parametrize(
    "open_raw", [open_server_with_raw_client, open_client_with_raw_server], ids=["server", "client"]
)
