"""Clients: from a URL to an open connection, or to the reason why there is none.

Read `client` first. Servers stay out.
"""
