"""The command ``trio-ws``: serve an application, in one process or several, and talk to a server.

Read `cli` first: each subcommand begins there. Nothing in other rooms knows the command line.
"""
