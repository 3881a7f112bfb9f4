"""Requests, responses, header fields and URLs, without I/O."""
