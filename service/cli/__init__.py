"""The command line, `spectune`: one file a group of verbs."""

from __future__ import annotations

import sys

_OWN = "spectune"
_MISSING_EXTRA = 2


def main() -> None:
    """Run the command line, or print which extra it lacks: the optimizers are installed without it."""
    try:
        from spectune.service.cli.application import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == _OWN:
            raise
        sys.stderr.write(
            "spectune: this command needs the extra 'service': pip install 'spectune[service]' "
            f"(no module named {error.name!r})\n"
        )
        sys.exit(_MISSING_EXTRA)
    run()
