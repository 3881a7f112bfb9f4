"""Results as JSON and as Markdown: what each reached, losses as plainly as wins."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.cases import CASES, MAIN, PACED, SCALE, Case, Echo, Paced
from benchmarks.paced import LATE, PERCENTILES
from benchmarks.roster import BESIDE, KNOWN, OURS, Peer
from benchmarks.rounds import Result
from benchmarks.targets import PLAIN, SPEEDUPS, TARGETS, Target

#: From this part of the time on, the load is as busy as it can be: a faster server might show
#: better than this.
SATURATED = 0.9

#: A server that answers less than this part of what a paced load sends fell behind.
FELL_BEHIND = 0.95

#: From this part of the time on, others disturbed the process under test, and it is said.
DISTURBED = 0.02


@dataclass(frozen=True)
class Figure:
    """What one peer reached in one case: the median of the rounds, and all of them."""

    value: float
    rounds: list[float]
    details: dict[str, float] = field(default_factory=dict)
    costs: list[float] = field(default_factory=list)
    """Processor time for each event, in microseconds, of all rounds."""

    @classmethod
    def of(cls, result: Result) -> Figure:
        """Without the digits that mean nothing."""
        return cls(
            tidy(result.value),
            [tidy(measurement.value) for measurement in result.measurements],
            {name: tidy(value) for name, value in result.details.items()},
            [
                tidy(measurement.details["microseconds"])
                for measurement in result.measurements
                if "microseconds" in measurement.details
            ],
        )

    @property
    def is_bound_by_load(self) -> bool:
        return self.details.get("load", 0) > SATURATED

    @property
    def is_late(self) -> bool:
        """Whether the load did not keep its times, because others held its core."""
        return self.details.get("late", 0) > LATE


def tidy(number: float) -> float:
    return float(f"{number:.4g}")


@dataclass
class Report:
    """Everything that a run gave."""

    machine: dict[str, str]
    rounds: int
    seconds: float
    remarks: list[str] = field(default_factory=list)
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    """By case, then by peer."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        fields: dict[str, Any] = json.loads(text)
        figures = {
            case: {peer: Figure(**figure) for peer, figure in by_peer.items()}
            for case, by_peer in fields.pop("figures").items()
        }
        return cls(**fields, figures=figures)

    def find(self, case: str, peer: str) -> Figure | None:
        return self.figures.get(case, {}).get(peer)

    def measured(self, cases: Iterable[Case]) -> list[Case]:
        return [case for case in cases if self.figures.get(case.name)]

    @property
    def peers(self) -> list[Peer]:
        """Those with any result, in the order of the roster."""
        return [
            peer
            for peer in KNOWN.values()
            if any(peer.name in by_peer for by_peer in self.figures.values())
        ]

    @property
    def disturbance(self) -> float:
        """The part of the time for which others held the core of what was under test."""
        waits = [
            figure.details["waited"]
            for by_peer in self.figures.values()
            for figure in by_peer.values()
            if "waited" in figure.details
        ]
        return statistics.median(waits) if waits else 0.0


# ---------------------------------------------------------------------------
# Markdown
# ---------------------------------------------------------------------------


def to_markdown(report: Report) -> str:
    """All tables, with what they were measured on."""
    return "\n".join(line for part in parts(report) for line in (*part, ""))


def parts(report: Report) -> Iterator[Iterable[str]]:
    yield ["# Benchmark results"]
    main, paced, scale = map(report.measured, (MAIN, PACED, SCALE))
    compared = list(beside_rows(report))
    if compared:
        yield ["## Beside the other checkout"]
        yield [*BESIDE_HEAD, *compared]
    if main:
        yield ["## In numbers"]
        yield table(report, main, value_cell)
        yield from notes(report, main)
        for subject in (PLAIN, SPEEDUPS):
            if any(report.find(case.name, subject) for case in main):
                yield [f"## {KNOWN[subject].title}, times the peer"]
                yield ratio_table(report, main, subject)
        yield ["## Processor time of the process under test"]
        yield table(report, main, cost_cell, cost_unit)
    if paced:
        yield ["## Paced: processor time for a message"]
        yield table(report, paced, value_cell)
        for subject in (PLAIN, SPEEDUPS):
            if any(report.find(case.name, subject) for case in paced):
                yield [f"{KNOWN[subject].title}, times the peer:"]
                yield ratio_table(report, paced, subject)
        yield ["## Paced: latency"]
        yield table(report, paced, latency_cell, lambda case: f"ms, {' / '.join(PERCENTILES)}")
        if any(figure.is_late for case in paced for figure in report.figures[case.name].values()):
            yield ["~: others held the load's core now and then, which may be in these latencies."]
        yield from overtaxed(report, paced)
    if scale:
        yield ["## As the load grows"]
        yield table(report, scale, value_cell)
        yield ["What it costs the server:"]
        yield table(report, scale, cost_cell, cost_unit)
    yield ["## Measured on"]
    yield machine_list(report)


def table(
    report: Report,
    cases: Sequence[Case],
    cell: Callable[[Case, Figure], str],
    unit: Callable[[Case], str | None] = lambda case: case.unit,
) -> Iterator[str]:
    """A row for each case that has the unit, a column for each peer."""
    rows = [case for case in cases if unit(case)]
    peers = [
        peer for peer in report.peers if any(report.find(case.name, peer.name) for case in rows)
    ]
    yield row("", "", *(peer.title for peer in peers))
    yield row(":--", ":--", *("--:" for _ in peers))
    for case in rows:
        figures = (report.find(case.name, peer.name) for peer in peers)
        yield row(case.title, str(unit(case)), *(cell(case, f) if f else "" for f in figures))


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def value_cell(case: Case, figure: Figure) -> str:
    return ("≥ " if figure.is_bound_by_load else "") + show(figure.value)


def latency_cell(case: Case, figure: Figure) -> str:
    try:
        times = [show(figure.details[name] / 1000) for name in PERCENTILES]
    except KeyError:
        return ""
    return "~ " * figure.is_late + " / ".join(times)


def overtaxed(report: Report, cases: Sequence[Case]) -> Iterator[Iterable[str]]:
    """Who fell behind. Its latencies say only for how long the load went on."""
    for case in cases:
        assert isinstance(case, Paced)
        planned = case.rate * case.connections
        slow = [
            f"{KNOWN[peer].title} {show(figure.details['rate'])}"
            for peer, figure in report.figures[case.name].items()
            if figure.details.get("rate", planned) < FELL_BEHIND * planned
        ]
        if slow:
            told = f"{', '.join(slow)} messages a second instead of {planned:,.0f}"
            yield [f"{case.title}: too much for {told}."]


def show(number: float) -> str:
    """Three digits or so, which is more than two runs agree in."""
    if number >= 1000:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:#.3g}".removesuffix(".")


def cost_unit(case: Case) -> str | None:
    if case.less_is_better:
        return None  # memory, or processor time itself
    return "ns/byte" if case.unit == "MB/s" else f"µs/{case.unit.removesuffix('s/s')}"


def cost_cell(case: Case, figure: Figure) -> str:
    microseconds = figure.details.get("microseconds")
    return "" if microseconds is None else show(cost_in_unit(case, microseconds))


def cost_in_unit(case: Case, microseconds: float) -> float:
    if case.unit == "MB/s":
        assert isinstance(case, Echo)
        return microseconds * 1000 / case.size
    return microseconds


def notes(report: Report, cases: Sequence[Case]) -> Iterator[Iterable[str]]:
    """What the table has no room for."""
    for case in cases:
        for detail, text in DETAILS.items():
            values = [
                f"{KNOWN[peer].title} {show(figure.details[detail])}"
                for peer, figure in report.figures[case.name].items()
                if detail in figure.details
            ]
            if values:
                yield [
                    f"{text.format(case.title[0].upper() + case.title[1:])}: {', '.join(values)}."
                ]
    if any(
        figure.is_bound_by_load for case in cases for figure in report.figures[case.name].values()
    ):
        yield ["≥: the load was as busy as it can be, and the server might do more."]


DETAILS = {
    "first_to_last_ms": "{}, milliseconds from the first delivery of a message to the last",
    "reply_size": "{}, bytes of an echo",
}


def ratio_table(report: Report, cases: Sequence[Case], subject: str) -> Iterator[str]:
    """How many times better than each peer: under 1 it is worse, and bold."""
    peers = [peer for peer in report.peers if peer.name not in (PLAIN, SPEEDUPS)]
    yield row("", *(peer.title for peer in peers))
    yield row(":--", *("--:" for _ in peers))
    for case in cases:
        ours = report.find(case.name, subject)
        theirs = [report.find(case.name, peer.name) for peer in peers]
        if ours:
            cells = (ratio_cell(advantage(case, ours, one)) if one else "" for one in theirs)
            yield row(case.title, *cells)


def advantage(case: Case, ours: Figure, theirs: Figure) -> float:
    """How many times better ours is."""
    return theirs.value / ours.value if case.less_is_better else ours.value / theirs.value


def ratio_cell(ratio: float) -> str:
    return f"{ratio:.2f} ×" if ratio >= 1 else f"**{ratio:.2f} ×**"


BESIDE_HEAD = (
    row("", "", "processor time", "this", "the other", "times better", "in each round", "waited"),
    row(":--", ":--", ":--", "--:", "--:", "--:", "--:", "--:"),
)


def beside_rows(report: Report) -> Iterator[str]:
    """Processor time of both checkouts, or memory. A round of the one is beside one of the other,
    so that their ratios show how much the result is to be trusted; so does the time for which they
    waited, because others held the core.
    """
    for case in report.measured(CASES.values()):
        for ours, other in zip(OURS, BESIDE, strict=True):
            found = [report.find(case.name, peer.name) for peer in (ours, other)]
            figures = [figure for figure in found if figure]
            costs = [costs_of(case, figure) for figure in figures]
            waits = [figure.details.get("waited", 0) for figure in figures]
            if len(costs) == 2 and all(costs):
                this, that = map(statistics.median, costs)
                ratios = [theirs / mine for mine, theirs in zip(*costs, strict=True)]
                yield row(
                    *(case.title, ours.title, cost_unit(case) or case.unit),
                    *(show(cost) for cost in (this, that)),
                    ratio_cell(that / this),
                    f"{min(ratios):.2f} – {max(ratios):.2f}",
                    " / ".join(f"{waited:.0%}" for waited in waits),
                )


def costs_of(case: Case, figure: Figure) -> list[float]:
    """Of each round, in the unit of `cost_unit`."""
    if case.less_is_better:
        return figure.rounds
    return [cost_in_unit(case, cost) for cost in figure.costs]


def machine_list(report: Report) -> Iterator[str]:
    machine = dict(report.machine)
    described = [machine.pop(name) for name in ("processor", "system")]
    cores = machine.pop("cores")
    yield f"- {described[0]}, {cores} cores, {described[1]}"
    yield f"- {', '.join(f'{name} {version}' for name, version in machine.items())}"
    yield f"- medians of {report.rounds} interleaved rounds of {report.seconds:g} s"
    if report.disturbance > DISTURBED:
        yield (
            f"- **disturbed**: other processes held the core of the process under test for"
            f" {report.disturbance:.0%} of the time"
        )
    yield from (f"- {remark}" for remark in report.remarks)


# ---------------------------------------------------------------------------
# Targets
# ---------------------------------------------------------------------------


def targets_to_markdown(report: Report, targets: Sequence[Target] = TARGETS) -> str:
    """What is to be reached, what is, and whether that is enough."""
    lines = [
        row("", "who", "target", "reached", "", "by processor time"),
        row(":--", ":--", "--:", "--:", ":--", "--:"),
    ]
    lines += [target_row(report, target) for target in targets]
    return "\n".join([*lines, ""])


def target_row(report: Report, target: Target) -> str:
    """Processor time decides nothing, but tells more than the rate does on a disturbed machine."""
    case = CASES[target.case]
    beginning = (case.title, KNOWN[target.subject].title, wanted(case, target))
    ours = report.find(target.case, target.subject)
    theirs = report.find(target.than or target.case, target.peer or target.subject)
    if not ours or not theirs:
        return row(*beginning, "", "not measured", "")
    if target.than:
        return row(*beginning, *growth(target, ours, theirs))
    if not target.peer:
        return row(*beginning, show(ours.value), verdict(reached=ours.value <= target.bound), "")
    ratio = advantage(case, ours, theirs)
    outcome = verdict(reached=ratio >= target.bound)
    return row(*beginning, f"{ratio:.2f} ×", outcome, cost_ratio(ours, theirs))


def growth(target: Target, ours: Figure, before: Figure) -> tuple[str, str, str]:
    """How much more an event costs than in another case; the last cells of a row."""
    try:
        times = ours.details["microseconds"] / before.details["microseconds"]
    except KeyError:  # not every system tells
        return "", "not measured", ""
    return f"{times:.2f} ×", verdict(reached=times <= target.bound), ""


def wanted(case: Case, target: Target) -> str:
    if target.than:
        return f"≤ {target.bound:g} × {CASES[target.than].title}"
    if target.peer is None:
        return f"≤ {target.bound:g} {case.unit}"
    return f"≥ {target.bound:g} × {KNOWN[target.peer].title}"


def cost_ratio(ours: Figure, theirs: Figure) -> str:
    try:
        return f"{theirs.details['microseconds'] / ours.details['microseconds']:.2f} ×"
    except KeyError:
        return ""  # not every system tells


def verdict(*, reached: bool) -> str:
    return "reached" if reached else "**missed**"
