"""Backplanes: in memory, and over a real Redis that is killed, stalled or refuses."""
