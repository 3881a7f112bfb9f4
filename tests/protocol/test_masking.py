"""`masking`: the XOR at every size, by every way there is, and keys."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import xor
from trio_ws._protocol import masking as _masking
from trio_ws._protocol.masking import INTEGER_BELOW, TRANSLATE_STEP, mask, new_key

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 125, 126, 1000, 1023, 1024, 1025, 1031, 12287, 12288, 12289]


@pytest.mark.parametrize("size", [*SIZES, TRANSLATE_STEP - 1, TRANSLATE_STEP, TRANSLATE_STEP + 5])
@pytest.mark.parametrize("key", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x80\x00\xfe"])
def test_masking_is_xor_with_the_key_over_and_over(size: int, key: bytes) -> None:
    data = os.urandom(size)
    masked = mask(data, 0, size, key)
    assert masked == xor(data, key)
    assert mask(bytes(masked), 0, size, key) == data
    assert mask(b"before" + data + b"after", 6, 6 + size, key) == masked


WITHOUT_NUMPY = """
import os, sys
sys.modules["numpy"] = None
from tests.helpers import xor
from trio_ws._protocol.masking import INTEGER_BELOW, TRANSLATE_STEP, mask
assert INTEGER_BELOW > 1024
for size in (*map(int, sys.argv[1:]), TRANSLATE_STEP - 1, TRANSLATE_STEP, TRANSLATE_STEP + 5):
    data, key = os.urandom(size), os.urandom(4)
    assert mask(data, 0, size, key) == xor(data, key), size
"""


def test_without_numpy_it_is_the_same() -> None:
    assert INTEGER_BELOW == 1024  # NumPy is here
    subprocess.run([sys.executable, "-c", WITHOUT_NUMPY, *map(str, SIZES)], check=True)


def test_keys_do_not_repeat_and_are_of_four_bytes() -> None:
    keys = [new_key() for _ in range(4 * _masking.KEYS_AT_ONCE)]
    assert {len(key) for key in keys} == {4}
    # Of a thousand, two may be the same, at odds of one to eight thousand; not many.
    assert len(set(keys)) > len(keys) - 3


def test_a_forked_process_has_keys_of_its_own() -> None:
    new_key()
    theirs, ours = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - coverage ends with _exit
        os.write(ours, b"".join(new_key() for _ in range(4)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(theirs, 16) != b"".join(new_key() for _ in range(4))
    os.close(theirs)
    os.close(ours)
