"""What commands print in tables is never shortened: a pipe has no width, and a narrow terminal folds texts alone."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from spectune.service.cli.consoles import output_console, print_table

ID = "root-percentile-of-outliers-and-their-rates-c069ac189f"
VALUE = "1.234e-05 ± 6.7e-06"
WORDS = "best search value: one seed, so small differences may be chance"


def table() -> Table:
    made = Table()
    made.add_column("campaign", no_wrap=True)
    made.add_column("value", no_wrap=True)
    made.add_column("how", overflow="fold", min_width=14)
    made.add_row(ID, VALUE, WORDS)
    return made


def test_a_pipe_gets_whole_lines_whatever_its_environment_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(output_console(), table())
    printed = capsys.readouterr().out
    assert any(ID in line and VALUE in line and WORDS in line for line in printed.splitlines())


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_terminal_of_any_width_shows_numbers_and_ids_whole(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_table(console, table())
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert ID in printed
    assert VALUE in printed
    assert "…" not in printed
    assert all(word in printed for word in WORDS.split())
