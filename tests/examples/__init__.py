"""The examples, run as a user runs them, and their pages in a browser."""
