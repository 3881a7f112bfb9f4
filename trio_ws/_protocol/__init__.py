"""The WebSocket protocol (RFC 6455, RFC 7692): bytes to messages and back.

Read `wire` first: one per connection, it takes bytes and gives events. No I/O, no trio and no clock
comes in here, so that everything can be tested with plain bytes.
"""
