"""The version, alone in its file so that the build and the code read the same one."""

__version__ = "0.2.0"
