"""What was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from benchmarks.roster import versions


def describe() -> dict[str, str]:
    """Processor, cores, system, and the versions of what was measured."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        **versions(),
    }


def processor() -> str:
    """Its model, as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
