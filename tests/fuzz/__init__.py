"""Fuzzing with atheris: `make fuzz` runs it."""
