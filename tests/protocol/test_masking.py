"""`masking`: the XOR at every size, by every way there is, and keys."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import xor
from trio_ws._protocol import masking as _masking
from trio_ws._protocol.masking import TRANSLATE_FROM, TRANSLATE_STEP, WORDS_FROM, mask, new_key

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 125, 126, 1000, 1031]
SIZES += [border + beside for border in (WORDS_FROM, TRANSLATE_FROM) for beside in (-1, 0, 1)]


@pytest.mark.parametrize("size", [*SIZES, TRANSLATE_STEP - 1, TRANSLATE_STEP, TRANSLATE_STEP + 5])
@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x80\x00\xfe"])
def test_masking_is_xor_with_the_key_over_and_over(size: int, key: bytes) -> None:
    data = os.urandom(size)
    masked = mask(data, 0, size, key)
    assert masked == xor(data, key)
    assert mask(bytes(masked), 0, size, key) == data
    assert mask(b"before" + data + b"after", 6, 6 + size, key) == masked


IN_A_FRESH_INTERPRETER = """
import os, sys
from trio_ws._protocol.masking import TRANSLATE_STEP, WORDS_FROM, mask, load_numpy
def check(size):
    data, key = os.urandom(size), os.urandom(4)
    expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    assert mask(data, 0, size, key) == expected, size
"""
SMALL_FIRST = """
check(WORDS_FROM - 1)
assert "numpy" not in sys.modules
check(WORDS_FROM)
assert "numpy" in sys.modules
"""
WITHOUT_NUMPY = """
sys.modules["numpy"] = None
for size in (*map(int, sys.argv[1:]), TRANSLATE_STEP - 1, TRANSLATE_STEP, TRANSLATE_STEP + 5):
    check(size)
"""
LARGEST_FIRST = f"import sys; sys.argv[1:] = sys.argv[:0:-1]; {WITHOUT_NUMPY}"


@pytest.mark.parametrize("code", [SMALL_FIRST, WITHOUT_NUMPY, LARGEST_FIRST])
def test_numpy_is_loaded_for_the_first_large_payload_and_without_it_all_is_the_same(
    code: str,
) -> None:
    code = IN_A_FRESH_INTERPRETER + code
    subprocess.run([sys.executable, "-c", code, *map(str, SIZES)], check=True)


def test_a_server_has_numpy_before_it_serves() -> None:
    code = 'import sys, trio_ws; trio_ws.serve_websocket; assert "numpy" in sys.modules'
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keys_do_not_repeat_and_are_of_four_bytes() -> None:
    keys = [new_key() for _ in range(4 * _masking.KEYS_AT_ONCE)]
    assert {len(key) for key in keys} == {4}
    # Of a thousand, two may be the same, at odds of one to eight thousand; not many.
    assert len(set(keys)) > len(keys) - 3


# In a process of its own: fork is not for one that has threads, as that of the suite may have.
FORKED = """
import os
from trio_ws._protocol.masking import new_key
new_key()
theirs, ours = os.pipe()
child = os.fork()
keys = b"".join(new_key() for _ in range(4))
if not child:
    os.write(ours, keys)
    os._exit(0)
os.waitpid(child, 0)
assert os.read(theirs, 16) != keys
"""


def test_a_forked_process_has_keys_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True)
