"""How the command line ends: its exit codes, and the error that carries one."""

from __future__ import annotations

import signal
from typing import Final

#: What was asked for was done. A shutdown in good order is, whichever signal asked for it: systemd,
#: Docker and Kubernetes take anything else for a failure.
DONE: Final = 0
#: It could not start, or failed later. Trying again may help.
FAILED: Final = 1
#: The command line is wrong, and trying it again is of no use. argparse says the same.
USAGE: Final = 2
#: And the number of the signal, as shells count: a signal ended it, and not in good order.
SIGNALLED: Final = 128
INTERRUPTED: Final = SIGNALLED + signal.SIGINT


class CommandFailed(Exception):
    """The command cannot go on; its text is the one line that the user is told.

    Where it has a cause, that is an error in the user's own code, and shown with its traceback.
    """

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status
