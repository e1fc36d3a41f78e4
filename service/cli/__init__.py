"""The command line, `spectune`: one file a group of verbs."""

from service.cli.main import main

__all__ = ["main"]
