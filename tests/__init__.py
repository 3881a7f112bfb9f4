"""Tests of trio_ws: a folder for each room of the package, and a few for what is around it."""
