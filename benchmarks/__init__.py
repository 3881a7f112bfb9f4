"""Measures trio_ws beside its peers: ``python -m benchmarks``, see docs/benchmarks.md."""
