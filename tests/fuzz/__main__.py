"""Fuzz with atheris, which looks for inputs that reach code that no input reached before.

    python -m tests.fuzz [--seconds 60] [TARGET ...]

A target is a module beside this one: `one_input` takes bytes and fails where something is wrong.
Each runs for so many seconds in a process of its own, from the same seed. An input that fails is
kept in tests/artifacts, and `--replay FILE` gives it to a target again.
"""

# ruff: noqa: T201 - what it prints is its result

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGETS = ("wire", "deflate", "handshake", "tls")
ARTIFACTS = Path(__file__).parents[1] / "artifacts"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=" or ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    targets = options.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if options.inside:
        fuzz(targets[0], options.seconds, options.seed)
    if options.replay is not None:
        for target in targets:
            load(target).one_input(options.replay.read_bytes())
        return 0
    failed = [target for target in targets if run(target, options.seconds, options.seed) != 0]
    print(f"Failed: {', '.join(failed)}." if failed else f"No failure in {', '.join(targets)}.")
    return len(failed)


def run(target: str, seconds: int, seed: int) -> int:
    """Run one target in a separate process: libFuzzer ends the one that it runs in."""
    print(f"==== {target}: {seconds} s", flush=True)
    how = ["--inside", "--seconds", str(seconds), "--seed", str(seed)]
    command = [sys.executable, "-m", "tests.fuzz", *how, target]
    return subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode


def fuzz(target: str, seconds: int, seed: int) -> None:
    """Does not return."""
    atheris: Any = importlib.import_module("atheris")  # it is not installed where types are checked
    with atheris.instrument_imports(include=["trio_ws", "wsproto", "h11"]):
        module = load(target)
    ARTIFACTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for index, seed_input in enumerate(module.seeds()):
            (Path(corpus) / f"seed-{index}").write_bytes(seed_input)
        arguments = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            "-max_len=4096",
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            "-verbosity=0",
            f"-artifact_prefix={ARTIFACTS}/fuzz-{target}-",
            corpus,
        ]
        atheris.Setup([target, *arguments], module.one_input)
        atheris.Fuzz()


def load(target: str) -> Any:
    return importlib.import_module(f"tests.fuzz.{target}")


if __name__ == "__main__":
    sys.exit(main())
