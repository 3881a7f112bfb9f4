"""The dashboard for Grafana asks for what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.metrics.metrics_helpers import Samples
from trio_ws._metering import METRICS, no_numbers
from trio_ws.metrics._prometheus import text_of

DASHBOARD = Path(__file__).parents[2] / "examples" / "deploy" / "grafana.json"


def queries() -> list[str]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_it_asks_for_samples_that_the_page_has_and_for_every_metric() -> None:
    page = Samples(b"".join(text_of(metric, no_numbers()) for metric in METRICS))
    names = {sample.name for family in page.families.values() for sample in family.samples}
    asked = {name for query in queries() for name in re.findall(r"trio_ws_\w+", query)}
    assert asked <= names
    for metric in METRICS:
        assert any(name.startswith(metric.name) for name in asked), metric.name


def test_it_sums_by_labels_that_there_are() -> None:
    labels = {label for metric in METRICS for label in metric.labels}
    for query in queries():
        for grouping in re.findall(r"by \(([^)]*)\)", query):
            assert {*grouping.split(", ")} <= {*labels, "le"}
