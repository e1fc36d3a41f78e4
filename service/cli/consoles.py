"""Consoles on which a command prints: nothing that a reader may want to copy is ever shortened.

A file or a pipe has no width, so lines are as long as they are. On a terminal a table's texts are folded to its width;
numbers and ids are not, and a table of those that is wider than the terminal is printed as wide as it is.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

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
    width = max(console.width, sum(map(_least_width, table.columns)) + 1)
    Console(file=console.file, width=width, force_terminal=console.is_terminal).print(table)


def _least_width(column: Column) -> int:
    """Return the least width of a column with the space around it and the line beside it."""
    texts = [str(each) for each in (column.header, *column.cells)]
    return 3 + (max(map(cell_len, texts)) if column.no_wrap else column.min_width or 1)
