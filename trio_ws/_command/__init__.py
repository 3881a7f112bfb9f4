"""The command ``trio-ws``: serve an application, in one process or several, and talk to a server.

Read `cli` first: each subcommand begins there. Nothing below knows that there is a command line.
"""
