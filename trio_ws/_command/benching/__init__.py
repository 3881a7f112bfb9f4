"""``trio-ws bench``: load on a server, and what it made of it.

Read `load` first: it has the phases of a run. `plan` says what is to happen, `tally` what happened,
and `report` how that is told. Nothing here knows the arguments of the command.
"""
