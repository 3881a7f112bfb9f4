"""The processes under test, one module for each library: an echo server, a broadcaster, a client.

Each uses its library as the library's own documentation does, set up for speed where that is
documented. What they have in common is in `benchmarks.subject`.
"""

from benchmarks import subject

# Here, because this runs before a module of the package imports its library.
subject.prepare()
