"""The numbers of servers and broadcasts, for Prometheus and others.

Read `_metrics` first: it opens the block in which things are measured. `_prometheus` alone knows
prometheus-client. What is measured, and where, stays out: the ground floor has the table
(`_metering`), and each room counts for itself.
"""

from ._metrics import Metrics, open_metrics

__all__ = ["Metrics", "open_metrics"]
