"""A campaign as one file to hand on: what was asked for, with what, with which seeds, and every curve that came of it.

manifest.json     the format, and the SHA-256 of every other file
trials.jsonl      a line a trial: arm, point, seed, configuration, how it ended, and all its reports
and the files of `documents.py`

The same ledger gives the same bytes. A file that is torn or has been changed is refused with its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spectune.service.campaign.model.lifecycle import TrialState
from spectune.service.campaign.model.numbers import from_json, metrics_from_json, metrics_to_json, to_json
from spectune.service.campaign.model.records import Observation, Phase, TrialOutcome, TrialRecord
from spectune.service.campaign.specification.specification import Specification, restore
from spectune.service.campaign_file import parse_document
from spectune.service.errors import BundleError

FORMAT: Final = 1
_MANIFEST, _TRIALS, _CAMPAIGN = "manifest.json", "trials.jsonl", "campaign.yaml"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip file can tell
_MAX_BYTES: Final = 4 * 2**30


@dataclass(frozen=True)
class BundledTrial:
    """A trial of a bundle.

    Attributes:
        number: Its number in its campaign.
        arm: The name of its arm.
        phase: What it was for.
        point: Its point within the arm.
        seed_index: Which seed.
        config: Its hyperparameters.
        state: How it ended, or where it stood.
        objective: What it last reported of it; None before any report.
        curve: Its metrics by step.
        executions: On what it was computed, each once; empty in bundles of earlier releases.
    """

    number: int
    arm: str
    phase: str
    point: int
    seed_index: int
    config: Mapping[str, Any]
    state: str
    objective: float | None
    curve: Mapping[int, Mapping[str, float]]
    executions: Sequence[Mapping[str, Any]] = ()

    def outcome(self, *, arm: int) -> TrialOutcome:
        """Return what standings need to know of it.

        Args:
            arm: The index of its arm.
        """
        phase, state = Phase(self.phase), TrialState(self.state)
        return TrialOutcome(self.number, arm, self.point, phase, self.config, state, self.objective)


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds."""

    specification: Specification
    trials: Sequence[BundledTrial]


def write_bundle(
    documents: Mapping[str, str],
    specification: Specification,
    trials: Sequence[TrialRecord],
    observations: Sequence[Observation],
) -> bytes:
    """Write a bundle.

    Args:
        documents: Of the campaign, by file name; `campaign.yaml` among them.
        specification: The campaign's.
        trials: All its trials.
        observations: All of theirs.
    """
    lines = "".join(_trial_lines(specification, trials, observations))
    files = {name: text.encode() for name, text in {**documents, _TRIALS: lines}.items()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files[_MANIFEST] = (json.dumps({"format": FORMAT, "files": sums}, indent=1) + "\n").encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def read_bundle(content: bytes) -> Bundle:
    """Read a bundle.

    Raises:
        BundleError: It is none, of a later format, or a file in it is missing, torn or changed; says which.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = _checked(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise BundleError(f"the bundle is torn or no bundle: got {error}") from error
    specification = restore(parse_document(files[_CAMPAIGN].decode()))
    return Bundle(specification, [_trial(json.loads(line)) for line in files[_TRIALS].decode().splitlines()])


def _checked(archive: zipfile.ZipFile) -> dict[str, bytes]:
    names = archive.namelist()
    if _MANIFEST not in names:
        raise BundleError(f"the bundle has no {_MANIFEST}: got {', '.join(names[:5]) or 'an empty archive'}")
    if sum(each.file_size for each in archive.infolist()) > _MAX_BYTES:
        raise BundleError(f"the bundle unpacks to more than {_MAX_BYTES} bytes")
    manifest = json.loads(archive.read(_MANIFEST))
    if manifest["format"] != FORMAT:
        raise BundleError(f"the bundle is of a format that this release cannot read: got {manifest['format']!r}")
    files = {name: archive.read(name) for name in names if name != _MANIFEST}
    for name in sorted({*manifest["files"], *files, _TRIALS, _CAMPAIGN}):
        if name not in files or hashlib.sha256(files[name]).hexdigest() != manifest["files"].get(name):
            raise BundleError(f"a file of the bundle is missing or has been changed: got {name}")
    return files


def _trial_lines(
    specification: Specification, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> Iterator[str]:
    curves: defaultdict[int, list[Observation]] = defaultdict(list)
    for each in observations:
        curves[each.trial].append(each)
    for trial in sorted(trials, key=lambda trial: trial.number):
        line = {
            "number": trial.number,
            "arm": specification.arms[trial.arm].name,
            "phase": trial.phase,
            "point": trial.point,
            "seed_index": trial.seed_index,
            "config": dict(trial.config),
            "state": trial.state,
            "reason": trial.reason,
            "objective": None if trial.objective is None else to_json(trial.objective),
            "device_seconds": trial.device_seconds,
            "executions": [dict(each) for each in trial.executions],
            "curve": [[each.step, metrics_to_json(each.metrics)] for each in curves[trial.number]],
        }
        yield json.dumps(line, allow_nan=False) + "\n"


def _trial(line: Mapping[str, Any]) -> BundledTrial:
    names = ("number", "arm", "phase", "point", "seed_index", "config", "state")
    curve = {step: metrics_from_json(metrics) for step, metrics in line["curve"]}
    objective = None if line["objective"] is None else from_json(line["objective"])
    more = {"objective": objective, "curve": curve, "executions": line.get("executions", ())}
    return BundledTrial(**{name: line[name] for name in names}, **more)
