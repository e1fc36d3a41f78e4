"""The verbs of the command line: where each is defined, and the sentence with which help lists it.

A verb's module is imported when the verb is used: help would otherwise wait for torch, Optuna and the database.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        place: The function, or the group of verbs, as `module:name` below `spectune.service.cli`.
        sentence: The first of its docstring.
    """

    place: str
    sentence: str

    def load(self, name: str) -> Any:
        """Import the verb and return it as a command."""
        module, _, attribute = self.place.partition(":")
        found = getattr(importlib.import_module(f"spectune.service.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            group = get_group(found)
            group.name = name
            return group
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(name=name)(found)
        return get_command(alone)


VERBS: Final[dict[str, Verb]] = {
    "demo": Verb(
        "run:demo", "Tune Muon, PolarGrad, ROOT and AdamW on a small language model of real text, in two minutes."
    ),
    "run": Verb("run:run", "Run a campaign on this machine; Ctrl-C pauses it."),
    "report": Verb(
        "report:report",
        "Compare a campaign's optimizers: finals, verdicts, sensitivity, importances, what stopping early has cost.",
    ),
    "best": Verb("best:best", "Print a campaign's best configuration, as YAML and as Python."),
    "bundle": Verb(
        "bundle:bundle",
        "Write a campaign into one file: specification, environment, seeds, curves and report, with checksums.",
    ),
    "replay": Verb("replay:replay", "Train a bundle's best trials once more, as a worker does."),
    "sync": Verb(
        "sync:sync",
        "Bring MLflow up to date with the ledger: the data directory's own, or that of SPECTUNE_MLFLOW_URI.",
    ),
    "calibrate": Verb(
        "calibrate:calibrate", "Fit the coefficients of Newton-Schulz to a shape, and to recorded momenta of it."
    ),
    "corpus": Verb("corpus:corpus", "Make corpora for the task language_model."),
    "serve": Verb("serve:serve", "Serve campaigns over HTTP; SIGTERM ends the service, and campaigns go on."),
    "keys": Verb("serve:keys", "API keys of the service."),
    "submit": Verb("remote:submit", "Submit a campaign and print its id."),
    "preview": Verb("remote:preview", "Say what a campaign would do, without submitting it."),
    "list": Verb("remote:list_campaigns", "List campaigns, the newest first."),
    "show": Verb("remote:show", "Show a campaign and its best point."),
    "watch": Verb("remote:watch", "Follow a campaign until it ends; the exit status is 0 if it succeeded."),
    "cancel": Verb("remote:cancel", "Cancel a campaign."),
    "pause": Verb("remote:pause", "Pause a campaign; its trials keep their checkpoints."),
    "resume": Verb("remote:resume", "Queue a paused campaign again."),
    "retry": Verb("remote:retry", "Run the failed trials of an ended campaign again."),
    "extend": Verb("remote:extend", "Give each arm of an ended campaign more points."),
    "stop": Verb("remote:stop", "End one trial of a campaign."),
    "logs": Verb(
        "remote:logs",
        "Show the end of what a campaign's driver printed, and what the code of its trials printed in workers.",
    ),
}


class Verbs(TyperGroup):
    """All verbs; the one that is used is imported, the others are known by name and sentence."""

    def __init__(self, **options: Any) -> None:
        listed = {name: TyperCommand(name, help=verb.sentence) for name, verb in VERBS.items()}
        super().__init__(**options | {"commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb that is used."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, VERBS[name].load(name) if name in VERBS else command, rest
