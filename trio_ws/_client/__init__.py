"""Clients: from a URL to an open connection, or to the reason why there is none.

Read `client` first. Nothing of servers comes in here.
"""
