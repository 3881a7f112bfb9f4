"""The first inputs of tests/fuzz are right."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("target", ["wire", "deflate", "handshake", "tls"])
def test_the_first_inputs_of_fuzzing_are_right(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")
    for seed in module.seeds():
        for end in range(len(seed) + 1):
            module.one_input(seed[:end])
