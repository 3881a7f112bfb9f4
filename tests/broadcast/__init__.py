"""Broadcasts: publishing, subscribing, slow readers, history, and load."""
