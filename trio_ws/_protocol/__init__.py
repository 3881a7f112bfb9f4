"""The WebSocket protocol (RFC 6455, RFC 7692): bytes to messages and back.

Read `wire` first: each connection has one, which takes bytes and gives events. I/O, trio and clocks
stay out, so everything can be tested with plain bytes.
"""
