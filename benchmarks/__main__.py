"""Measure trio_ws beside its peers, in interleaved rounds, and write down what came out."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import machine
from benchmarks.cases import CASES, MAIN, PACED, SCALE, Case
from benchmarks.chart import to_svg
from benchmarks.processes import Stage
from benchmarks.report import Figure, Report, show, targets_to_markdown, to_markdown
from benchmarks.roster import BESIDE, BY_NAME, OURS, Peer
from benchmarks.rounds import measure
from benchmarks.targets import TARGETS

RESULTS, TABLES, CHART = "results.json", "tables.md", "chart.svg"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="Without --case, all but the paced and the scale cases; --paced and --scale add"
        " these. See --list.",
    )
    parser.add_argument("--case", nargs="+", action="extend", choices=CASES, metavar="NAME")
    parser.add_argument("--peer", nargs="+", action="extend", choices=BY_NAME, metavar="NAME")
    parser.add_argument(
        "--beside",
        type=checkout,
        metavar="FOLDER",
        help="where trio_ws is measured, measure the one in this checkout as well",
    )
    parser.add_argument("--paced", action="store_true", help="the paced cases as well")
    parser.add_argument("--scale", action="store_true", help="the scale cases as well")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for a measurement (1)")
    parser.add_argument(
        "--load",
        choices=("c", "python"),
        help="whether it is in C, where that can be built, which echoes and paced cases can have,"
        " or in Python; by default, only the paced cases have that in C",
    )
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="let everything else on the machine wait (Linux, as root)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"write {RESULTS}, {TABLES} and {CHART} into it",
    )
    parser.add_argument(
        "--targets",
        action="store_true",
        help="measure what the targets need, and say which are reached",
    )
    parser.add_argument(
        "--render",
        type=Path,
        metavar="FILE",
        help=f"measure nothing: the results are in this {RESULTS}",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and the peers")
    return parser.parse_args()


def checkout(text: str) -> Path:
    """The folder, if trio_ws is in it."""
    folder = Path(text).resolve()
    if not (folder / "trio_ws" / "__init__.py").exists():
        raise argparse.ArgumentTypeError(f"there is no trio_ws in {folder}")
    return folder


def main() -> None:
    options = arguments()
    if options.list:
        list_names()
        return
    report = read(options.render) if options.render else run(options)
    if options.targets:
        print(targets_to_markdown(report))
    if options.out:
        write(report, options.out)
    elif not options.targets:
        print(to_markdown(report))


def list_names() -> None:
    for case in CASES.values():
        print(f"--case {case.name:20}{case.title}, {case.unit}")
    for peer in BY_NAME.values():
        print(f"--peer {peer.name:20}{peer.title}")


def run(options: argparse.Namespace) -> Report:
    """Measure, with progress on stderr."""
    report = Report(machine.describe(), options.rounds, options.seconds)

    def remark(text: str) -> None:
        report.remarks.append(text)
        say(text)

    cases = chosen_cases(options)
    if options.beside:
        remark(f"beside: trio_ws in {options.beside}")
    # Results of two loads are not to be compared unawares.
    in_c = [case.name for case in cases if case.load_in_c(options.load)]
    if in_c:
        remark(f"with the load in C: {', '.join(in_c)}")
    with Stage(load=options.load, realtime=options.realtime) as stage:
        if options.realtime:
            remark(f"real-time priority: {'yes' if stage.is_realtime else 'not allowed'}")
        if not stage.is_pinned:
            remark("without two cores to pin them to, load and server share what there is")
        for results in measure(
            cases,
            chosen_peers(options),
            rounds=options.rounds,
            seconds=options.seconds,
            stage=stage,
            remark=remark,
        ):
            case = results[0].case
            say(f"{case.name}: {case.title} ({case.unit})")
            for result in results:
                figure = Figure.of(result)
                report.figures.setdefault(case.name, {})[result.peer.name] = figure
                say(f"  {result.peer.title:22}{figure.value:14,.1f}  {show_details(figure)}")
    return report


def show_details(figure: Figure) -> str:
    return "  ".join(f"{name} {show(value)}" for name, value in figure.details.items())


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    if options.case:
        return [CASES[name] for name in options.case]
    if options.targets:
        # Each with nobody but those that its targets are about.
        cases = [replace(case, peers=peers_of(case)) for case in CASES.values()]
        return [case for case in cases if case.peers]
    return [*MAIN, *PACED * options.paced, *SCALE * options.scale]


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    peers = [peer for peer in BY_NAME.values() if not options.peer or peer.name in options.peer]
    if options.beside:
        for ours, other in zip(OURS, BESIDE, strict=True):
            if ours in peers:
                peers.insert(peers.index(ours) + 1, replace(other, library=options.beside))
    return peers


def peers_of(case: Case) -> tuple[str, ...]:
    """Those that a target in this case is about."""
    return tuple(
        peer
        for target in TARGETS
        for peer in (target.subject, target.peer)
        if peer and case.name in (target.case, target.than)
    )


def read(file: Path) -> Report:
    return Report.from_json(file.read_text("utf-8"))


def write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULTS).write_text(report.to_json(), "utf-8")
    (folder / TABLES).write_text(to_markdown(report), "utf-8")
    (folder / CHART).write_text(to_svg(report), "utf-8")
    say(f"written to {folder}")


if __name__ == "__main__":
    main()
