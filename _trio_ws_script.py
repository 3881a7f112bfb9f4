"""The script ``trio-ws``: Ctrl-C ends it quietly from its first moment on.

It stands beside the package, because to import anything of a package is to import the package. That
takes a moment in which somebody may have noticed a mistyped command.
"""

from __future__ import annotations


def main() -> int:
    try:
        from trio_ws._command.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # as the commands, and as shells have it
