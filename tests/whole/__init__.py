"""All of a connection at once: guarantees, faults at every step, floods, and what is freed."""
