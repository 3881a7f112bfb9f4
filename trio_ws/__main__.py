"""``python -m trio_ws``: the same as the script ``trio-ws``."""

import sys

from ._command.cli import main

sys.exit(main())
