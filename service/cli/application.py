"""`spectune`: puts the verbs together and turns refusals into one message and exit status 2."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from importlib import metadata
from typing import Annotated, TextIO

import typer
from rich.console import Console

from spectune.service.cli.verbs import Verbs
from spectune.service.errors import (
    BundleError,
    CampaignNotFoundError,
    DataDirectoryError,
    NothingToShowError,
    OutputError,
    RequestError,
    ServiceError,
    SettingsError,
    SpecificationError,
)

EXIT_BAD_INPUT = 2
EXIT_NOT_SUCCEEDED = 1

application = typer.Typer(
    name="spectune",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"spectune {metadata.version('spectune')}")
        raise typer.Exit


@application.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hyperparameter search for matrix-gradient optimizers: Muon, PolarGrad, ROOT."""


def main() -> None:
    """Run the command line."""
    try:
        _run()
    except SpecificationError as error:
        _refuse("the campaign is refused", [str(problem) for problem in error.problems], EXIT_BAD_INPUT)
    except (
        BundleError,
        DataDirectoryError,
        SettingsError,
        RequestError,
        CampaignNotFoundError,
        NothingToShowError,
        OutputError,
    ) as error:
        _refuse("refused", str(error).splitlines(), EXIT_BAD_INPUT)
    except ServiceError as error:
        _refuse("the campaign cannot be followed", [str(error)], EXIT_NOT_SUCCEEDED)
    except BrokenPipeError:  # whoever read our output has had enough
        _silence(sys.stdout)
        sys.exit(EXIT_NOT_SUCCEEDED)
    except OSError as error:  # a disk that is full, a file that may not be read: the machine's, not the command's
        _silence(sys.stdout)
        what = error.filename if error.filename is not None else "standard output or a temporary file"
        _refuse("the command cannot go on", [f"{error.strerror or error}: got {what!r}"], EXIT_NOT_SUCCEEDED)
    finally:
        gc.freeze()  # on its way out the interpreter would look for garbage in all of torch and MLflow: half a second


def _run() -> None:
    """Run a verb, and find out whether its output has arrived."""
    try:
        application()
    finally:
        sys.stdout.flush()


def _silence(stream: TextIO) -> None:
    """Let go of output that cannot be written, or the interpreter tries once more on its way out."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _refuse(title: str, lines: list[str], status: int) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]spectune: {title}[/]")
    for line in lines:
        console.print(f"  {line}", markup=False)
    sys.exit(status)
