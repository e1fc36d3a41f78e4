"""Launchers: start the driver of an attempt, here as a child process."""

from service.launchers.subprocess import SubprocessLauncher

__all__ = ["SubprocessLauncher"]
