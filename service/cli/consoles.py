"""Consoles on which a command prints: nothing that a reader may want to copy is ever shortened.

A file or a pipe has no width, so lines are as long as they are. On a terminal a table's texts are folded to its width;
numbers and ids are not, and a table of those that is wider than the terminal is printed as wide as it is.
"""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_NO_LIMIT = 100_000  # columns


def output_console(*, stderr: bool = False) -> Console:
    """Return a console for what a command prints.

    Args:
        stderr: Whether it writes to standard error instead of standard output.
    """
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if console.is_terminal:
        return console
    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=_NO_LIMIT)


def print_table(console: Console, table: Table) -> None:
    """Print a table; its columns that are not to be wrapped are shown whole."""
    options = console.options.update(max_width=_NO_LIMIT)
    width = max(console.width, Measurement.get(console, options, table).minimum)
    Console(file=console.file, width=width, force_terminal=console.is_terminal).print(table)
