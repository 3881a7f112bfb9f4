"""The command line: `trio-ws serve`, with its workers, and `trio-ws connect`."""
