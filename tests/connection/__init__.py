"""A connection that is open: sending, receiving, pings, and how it ends."""
