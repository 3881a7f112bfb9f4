"""The command line: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import argparse

from benchmarks.cases import CASES, MAIN
from benchmarks.processes import Stage
from benchmarks.roster import BY_NAME
from benchmarks.rounds import measure


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, metavar="CASE")
    parser.add_argument("--peer", action="append", choices=BY_NAME, metavar="PEER")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    return parser


def main() -> None:
    arguments = parser().parse_args()
    cases = [CASES[name] for name in arguments.case or [case.name for case in MAIN]]
    peers = [BY_NAME[name] for name in arguments.peer or BY_NAME]
    with Stage() as stage:
        for results in measure(
            cases,
            peers,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            stage=stage,
            remark=print,
        ):
            case = results[0].case
            print(f"{case.title} ({case.unit})")
            for result in results:
                print(f"  {result.peer.title:22}{result.value:14,.1f}   {result.details}", flush=True)


if __name__ == "__main__":
    main()
