"""How the command line ends: its exit codes, and the error that carries one."""

from __future__ import annotations

import signal
from typing import Final

#: The command did its work. A graceful shutdown counts as that, whichever signal asked for it:
#: systemd, Docker and Kubernetes take any other code for a failure.
DONE: Final = 0
#: The command could not start, or failed later. Trying again may help.
FAILED: Final = 1
#: The command line is wrong, so trying it again does not help. argparse exits with the same code.
USAGE: Final = 2
#: What the user said to expect did not come (`--expect`, `--count`).
UNMET: Final = 3
#: A signal ended the command without a graceful shutdown. The signal's number is added, as shells
#: do.
SIGNALLED: Final = 128
INTERRUPTED: Final = SIGNALLED + signal.SIGINT


class CommandFailed(Exception):
    """The command cannot go on. The text is the one line that the user is shown.

    A ``__cause__`` is an error in the user's own code. It is shown with its traceback.
    """

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status
