"""Assertions in shared checks explain themselves as those in tests do."""

import pytest

pytest.register_assert_rewrite("tests.interop.scenarios")
