"""What the code of trials printed in workers, by trial; `trainers.worker.worker_output` wrote it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spectune.service.campaign.model.clean_text import clean_text

_MARK: Final = b"\x1e"
_LONGEST: Final = 256 * 1024


@dataclass(frozen=True)
class Printed:
    """What was printed while some trials trained.

    Attributes:
        trials: Which; more than one if they trained together, none before the first.
        text: As it was printed, cleaned.
    """

    trials: tuple[int, ...]
    text: str


def printed_in(content: bytes) -> list[Printed]:
    """Read a worker's file, stretch by stretch; those in which nothing was printed are left out."""
    found: list[tuple[tuple[int, ...], list[bytes]]] = [((), [])]
    for line in content.split(b"\n"):
        trials = _named(line)
        if trials is None:
            found[-1][1].append(line)
        elif trials != found[-1][0]:
            found.append((trials, []))
    texts = ((trials, clean_text(_decoded(lines), longest=_LONGEST)) for trials, lines in found)
    return [Printed(trials, text) for trials, text in texts if text.strip()]


def read_output(folder: Path, *, trial: int | None = None) -> str:
    """Return what workers printed, a heading before each stretch; empty if nothing was.

    Args:
        folder: Of the campaign's output: a folder for each attempt with a file for each worker.
        trial: The trial while which it was printed; None for all.
    """
    parts = [
        f"== {attempt}, worker {worker}, {_whose(each.trials)} ==\n{each.text.strip()}\n"
        for attempt, worker, content in _files(folder)
        for each in printed_in(content)
        if trial is None or trial in each.trials
    ]
    return clean_text("\n".join(parts), longest=4 * _LONGEST)


def _files(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield attempt, worker and content of every file, the oldest attempt first."""
    for attempt in sorted(folder.glob("attempt-*"), key=lambda path: (len(path.name), path.name)):
        for file in sorted(attempt.glob("*.log")):
            try:
                content = file.read_bytes()
            except OSError:
                continue
            yield attempt.name.replace("-", " "), file.stem, content


def _named(line: bytes) -> tuple[int, ...] | None:
    """Return the trials that a marker names; None if the line is none."""
    if not line.startswith(_MARK):
        return None
    try:
        trials = json.loads(line[1:])["trials"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    is_good = isinstance(trials, list) and all(type(trial) is int for trial in trials)
    return tuple(trials) if is_good else None


def _decoded(lines: list[bytes]) -> str:
    return b"\n".join(lines).decode("utf-8", "replace")


def _whose(trials: tuple[int, ...]) -> str:
    if not trials:
        return "before its first trial"
    if len(trials) == 1:
        return f"trial {trials[0]}"
    return f"trials {', '.join(map(str, trials[:20]))}{' and more' if len(trials) > 20 else ''}, which trained together"
