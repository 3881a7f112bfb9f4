"""The command ``trio-ws``: serve an application, in one process or several, and talk to a server.

Read `cli` first: it has the table of the commands. Nothing in other rooms knows the command line.
"""
