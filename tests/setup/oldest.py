"""Print the oldest versions that pyproject.toml admits, as constraints for pip.

    python tests/setup/oldest.py >constraints.txt

There is no list to keep: the lower bounds of the dependencies and of the extras are the list.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def oldest() -> list[str]:
    """Requirements such as ``trio==0.32``, in the order in which pyproject.toml has them.

    Raises:
        ValueError: one has no lower bound, or more than that.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    return [_pinned(each) for group in (project["dependencies"], *extras) for each in group]


def _pinned(requirement: str) -> str:
    found = re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement)
    if not found:
        raise ValueError(f"{requirement!r} is not of the form name>=version")
    return f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{each}\n" for each in oldest())
