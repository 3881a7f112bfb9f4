"""The Autobahn test suite, for servers and for clients: `make conformance` runs it."""
