"""JSON as RFC 8259 defines it, which is what browsers and most other languages read.

This module owns the rule that NaN and the infinities are not JSON. It knows nothing of messages.
"""

from __future__ import annotations

import json
from math import isinf
from typing import Any

# Made once: with arguments, the functions of `json` make one for each call.
_ENCODER = json.JSONEncoder(allow_nan=False)


def to_json(value: object) -> str:
    """`json.dumps`, except for NaN and infinity, which only Python writes into JSON.

    Raises:
        ValueError: `value` holds NaN or infinity, or holds itself.
        TypeError: something in `value` has no form in JSON.
    """
    try:
        return _ENCODER.encode(value)
    except ValueError as exc:
        try:
            json.dumps(value)
        except ValueError:
            raise exc from None  # the fault was something else
        raise ValueError(
            "JSON has no NaN and no infinity (RFC 8259 section 6): send None, "
            "or give dumps=json.dumps if every receiver is Python"
        ) from exc


def same_json(one: object, other: object) -> bool:
    """Whether both are written alike. Python has 0, 0.0 and False as equals, JSON has not."""
    return one is other or (one == other and to_json(one) == to_json(other))


def from_json(text: str) -> Any:
    """`json.loads`, except for NaN and infinity, in words or as a number too large for a float.

    Raises:
        ValueError: `text` is not JSON, or holds NaN or infinity.
        RecursionError: `text` is nested too deeply.
    """
    return _DECODER.decode(text)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return _refuse(f"a number as large as {digits[:40]}") if isinf(number) else number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
