"""Train trials of a bundle once more as a worker does, in a process of its own.

Started as `python -m spectune.service.driver.replay`.

The process begins with the variables of the campaign's arithmetic, pins its products and its threads as a worker slot
does, and trains each trial with the engine that trained it in the campaign. On a processor with the same instructions
the values are the same to the last bit. What it finds goes to a pipe of its own, a JSON line a trial: standard output
belongs to the user's code.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spectune.service.campaign.model.numbers import from_json, to_json
from spectune.service.driver.environment import portable_environment, worker_environment
from spectune.service.errors import BundleError
from spectune.service.findings.bundle import Bundle, BundledTrial, read_bundle

PORTABLE_INSTRUCTIONS: Final = "AVX2"
_MOST_TOGETHER: Final = 64


@dataclass(frozen=True)
class Replayed:
    """A trial that was trained once more.

    Attributes:
        trial: As it is in the bundle.
        value: Its last objective now; NaN if it diverged or failed.
        expected: Its last objective then.
        deviation: |value - expected| / |expected|; 0 if both are NaN.
        largest: The largest such deviation along the curve.
        execution: On what it was computed now: `spectune.trainers.worker.arithmetic.Execution` as JSON values.
        failure: The traceback of its code; empty if it did not fail.
    """

    trial: BundledTrial
    value: float
    expected: float
    deviation: float
    largest: float
    execution: Mapping[str, Any]
    failure: str = ""

    @property
    def is_identical(self) -> bool:
        """Whether every value came out to the last bit."""
        return self.largest == 0.0


def replay_trials(file: Path, bundle: Bundle, trials: Sequence[BundledTrial]) -> Iterator[Replayed]:
    """Train trials of a bundle once more and compare the objective at every report, in no particular order.

    Args:
        file: The bundle.
        bundle: What `file` holds.
        trials: Some of its trials; each has a curve.

    Raises:
        BundleError: The process that trains ended before it was done.
    """
    by_number = {trial.number: trial for trial in trials}
    for is_portable, some in _by_arithmetic(bundle, trials).items():
        for found in _train_elsewhere(file, [trial.number for trial in some], is_portable=is_portable):
            yield _compared(bundle, by_number[found["number"]], found)


def _by_arithmetic(bundle: Bundle, trials: Sequence[BundledTrial]) -> dict[bool, list[BundledTrial]]:
    """Group trials by whether they need the portable arithmetic: as asked for, or as their processor had no other."""
    groups: defaultdict[bool, list[BundledTrial]] = defaultdict(list)
    for trial in trials:
        families = {each["instructions"] for each in trial.executions}
        groups[bundle.specification.arithmetic == "portable" or families == {PORTABLE_INSTRUCTIONS}].append(trial)
    return groups


def _train_elsewhere(file: Path, numbers: Sequence[int], *, is_portable: bool) -> Iterator[dict[str, Any]]:
    reading, writing = os.pipe()
    command = [
        sys.executable,
        "-P",
        "-m",
        "spectune.service.driver.replay",
        "--bundle",
        str(file),
        "--to",
        str(writing),
    ]
    command += ["--portable"] if is_portable else []
    environment = os.environ | worker_environment() | (portable_environment() if is_portable else {})
    with (
        os.fdopen(reading, encoding="utf-8") as lines,
        subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[writing], env=environment, text=True) as process,
    ):
        os.close(writing)
        assert process.stdin is not None
        process.stdin.write(json.dumps(list(numbers)))
        process.stdin.close()
        try:
            yield from map(json.loads, lines)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise BundleError(f"the process that trains ended before it was done: got exit code {process.returncode}")


def _compared(bundle: Bundle, trial: BundledTrial, found: Mapping[str, Any]) -> Replayed:
    metric = bundle.specification.objective.metric
    values = {step: from_json(value) for step, value in found["values"]}
    last = max(trial.curve)
    deviations = [_deviation(values.get(step, math.nan), trial.curve[step][metric]) for step in sorted(trial.curve)]
    return Replayed(
        trial,
        values.get(last, math.nan),
        trial.curve[last][metric],
        deviations[-1],
        max(deviations),
        found["execution"],
        found["failure"],
    )


def _deviation(value: float, expected: float) -> float:
    if (math.isnan(value) and math.isnan(expected)) or value == expected:
        return 0.0
    apart = abs(value - expected) / abs(expected) if expected else math.inf
    return math.inf if math.isnan(apart) else apart


# In the process of its own


def main() -> None:
    """Train the trials whose numbers come from standard input."""
    parser = argparse.ArgumentParser(prog="python -m spectune.service.driver.replay", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--portable", action="store_true")
    arguments = parser.parse_args()
    bundle, numbers = read_bundle(arguments.bundle.read_bytes()), set(json.load(sys.stdin))
    with os.fdopen(arguments.to, "w", encoding="utf-8", buffering=1) as output:
        for found in _train(bundle, [each for each in bundle.trials if each.number in numbers], arguments.portable):
            output.write(json.dumps(found, allow_nan=False) + "\n")


def _train(bundle: Bundle, trials: Sequence[BundledTrial], is_portable: bool) -> Iterator[dict[str, Any]]:
    from spectune.trainers.worker.arithmetic import Arithmetic, execution_here
    from spectune.trainers.worker.slot import prepare_process

    resources = bundle.specification.resources
    arithmetic = Arithmetic.PORTABLE if is_portable else Arithmetic.FASTEST
    prepare_process(arithmetic=arithmetic, cpus=resources.cpus, gpus=resources.gpus)
    execution = execution_here(threads=resources.cpus, is_on_gpu=resources.gpus > 0).document()
    for group, is_alone in _groups(trials):
        for number, values, failure in _train_group(bundle, group, is_alone=is_alone):
            told = [[step, to_json(value)] for step, value in values.items()]
            yield {"number": number, "values": told, "failure": failure, "execution": execution}


def _groups(trials: Sequence[BundledTrial]) -> Iterator[tuple[Sequence[BundledTrial], bool]]:
    """Group trials that train together; one that had a slot to itself trains alone."""
    by_arm: defaultdict[str, list[BundledTrial]] = defaultdict(list)
    for trial in trials:
        if not trial.executions or trial.executions[-1]["alone"]:
            yield [trial], True
        else:
            by_arm[trial.arm].append(trial)
    for some in by_arm.values():
        for start in range(0, len(some), _MOST_TOGETHER):
            yield some[start : start + _MOST_TOGETHER], False


def _train_group(
    bundle: Bundle, group: Sequence[BundledTrial], *, is_alone: bool
) -> Iterator[tuple[int, dict[int, float], str]]:
    """Train trials to the ends of their curves; yields the number, the objective by step and the failure of each."""
    from spectune.service.driver.assignments import AssignmentMaker
    from spectune.trainers.engines.cohorts import cohort_for
    from spectune.trainers.engines.solo import Outcome

    maker, metric = AssignmentMaker(bundle.specification), bundle.specification.objective.metric
    arms = [arm.name for arm in bundle.specification.arms]
    seats = dict(enumerate(group))
    if len(seats) == 1 and not is_alone:
        seats[1] = group[0]  # a batch of one trial may differ in its last bits from the same trial among others
    settings = {
        seat: maker.setting(arm=arms.index(trial.arm), config=trial.config, seed_index=trial.seed_index)
        for seat, trial in seats.items()
    }
    cohort = cohort_for(settings[0], is_alone=is_alone)
    values: dict[int, dict[int, float]] = {seat: {} for seat in seats}
    failures = dict.fromkeys(seats, "")
    for seat, setting in settings.items():
        cohort.admit(seat, setting)
    for step in sorted({step for trial in group for step in trial.curve}):
        targets = {seat: step for seat in cohort.trials if step in seats[seat].curve}
        try:
            outcomes = cohort.advance(targets)
        except Exception:  # the user's code; which trial is to blame is not known
            failures |= dict.fromkeys(targets, traceback.format_exc())
            break
        measured = cohort.report([seat for seat in targets if outcomes[seat] is Outcome.REACHED])
        for seat, metrics in measured.items():
            if isinstance(metrics, str):
                failures[seat] = metrics
            else:
                values[seat][step] = metrics[metric]
        cohort.evict([seat for seat in targets if step not in values[seat] or step == max(seats[seat].curve)])
        if not cohort.trials:
            break
    for seat, trial in enumerate(group):
        yield trial.number, values[seat], failures[seat]


if __name__ == "__main__":
    main()
