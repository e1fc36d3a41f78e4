"""One campaign through every door: each names the same best point, with the same value, words and counts."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from spectune.service.campaign.analysis.best import NONE_COMPLETED, TWO_OBJECTIVES
from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.specification.specification import Specification, restore
from spectune.service.cli.application import application
from spectune.service.cli.bundle import best_trials
from spectune.service.cli.outcome import outcome_document, show_outcome
from spectune.service.cli.progress import ProgressDisplay
from spectune.service.client import Client
from spectune.service.data_directory import DataDirectory
from spectune.service.findings.bundle import read_bundle
from spectune.service.ledger import entries
from spectune.service.settings import Settings
from spectune.service.tracking.links import MLFLOW
from spectune.service.tracking.projector import Projector
from spectune.service.web import add_pages
from tests.fakes.tracker import FakeTracker
from tests.service.api.conftest import Bench, make_bench
from tests.service.api.test_tracking import FakePages

pytestmark = pytest.mark.filterwarnings("ignore:You should not use the 'timeout' argument")

DONE, STOPPED, DIVERGED = TrialState.COMPLETED, TrialState.STOPPED, TrialState.DIVERGED
FAILED, LOST, CANCELLED, RUNNING = TrialState.FAILED, TrialState.LOST, TrialState.CANCELLED, TrialState.RUNNING
NAN, INF = math.nan, math.inf
TWO_SEEDS = {"search": {"sampler": "random", "points": 8, "seeds": 2}}
FINALS = {"finals": {"keep": 1, "seeds": 3}}
MAXIMIZE = {"objective": {"metric": "validation_loss", "mode": "maximize"}}
ONE_SEED = "best search value: one seed, so small differences may be chance"
MEAN_OF_TWO = "best search value: mean ± 95 % interval, 2 seeds"
MEAN_OF_FINALS = "mean of finals ± 95 % interval, 3 seeds"

Trial = tuple[int, int, str, TrialState, float | None]
"""Arm, point, phase, state, and the last objective."""


@dataclass(frozen=True)
class Awkward:
    """A campaign, and what every door must say of it: the arm, the point, its value in words, and how it came."""

    trials: tuple[Trial, ...]
    best: tuple[str, int, str, str] | None
    progress: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    why_none: str = ""
    reason: str = "all_trials_ended"


def search(*trials: tuple[int, int, TrialState, float | None]) -> tuple[Trial, ...]:
    return tuple((arm, point, "search", state, value) for arm, point, state, value in trials)


def finals(arm: int, point: int, *values: float, state: TrialState = DONE) -> tuple[Trial, ...]:
    return tuple((arm, point, "final", state, value) for value in values)


AWKWARD = {
    "two seeds, one of them stopped": Awkward(
        search((0, 0, DONE, 0.1), (0, 0, STOPPED, 0.1), (0, 1, DONE, 0.3), (0, 1, DONE, 0.5), (1, 0, DIVERGED, NAN)),
        ("muon", 1, "0.4 ± 1.3", MEAN_OF_TWO),
        "3 completed, 1 stopped, 1 diverged of 5",
        TWO_SEEDS,
    ),
    "a completed trial that ended at NaN, others at infinities": Awkward(
        search((0, 0, DONE, NAN), (0, 1, DONE, -INF), (1, 0, DONE, 2.0), (1, 1, DONE, INF)),
        ("adamw", 0, "2", ONE_SEED),
        "4 completed of 4",
    ),
    "a diverged seed beside a lucky one": Awkward(
        search((0, 0, DONE, 0.01), (0, 0, DIVERGED, NAN), (1, 0, DONE, 3.0), (1, 0, LOST, None)),
        ("adamw", 0, "3", ONE_SEED),
        "2 completed, 1 diverged, 1 lost of 4",
        TWO_SEEDS,
    ),
    "nothing but diverged trials": Awkward(
        search((0, 0, DIVERGED, NAN), (1, 0, DIVERGED, INF)),
        None,
        "2 diverged of 2",
        why_none="no point has completed",
    ),
    "no trial": Awkward((), None, "none yet of 0", why_none="muon, adamw: never tried; arms are not comparable"),
    "an arm of which every trial failed": Awkward(
        search((0, 0, DONE, 0.1), (1, 0, FAILED, None)),
        None,
        "1 completed, 1 failed of 2",
        why_none="adamw: every trial failed; arms are not comparable",
    ),
    "finals of two arms, the lucky one of the search is the worse": Awkward(
        search((0, 0, DONE, 0.1), (0, 1, STOPPED, 0.0), (1, 0, DONE, 0.2))
        + finals(0, 0, 2.0, 2.5, 3.01)
        + finals(1, 0, 1.0, 1.51, 2.0),
        ("adamw", 0, "1.503 ± 1.2", MEAN_OF_FINALS),
        "8 completed, 1 stopped of 9",
        FINALS,
    ),
    "finals of one arm alone": Awkward(
        search((0, 0, DONE, 0.1), (1, 0, DONE, 0.2)) + finals(0, 0, 2.0, 2.5, 3.0),
        ("muon", 0, "0.1", ONE_SEED),
        "5 completed of 22",
        FINALS,
        reason="wall_seconds",
    ),
    "finals of which one seed was cancelled": Awkward(
        search((0, 0, DONE, 0.1), (1, 0, DIVERGED, NAN)) + finals(0, 0, 2.0, 4.0) + finals(0, 0, 1.0, state=CANCELLED),
        ("muon", 0, "3 ± 13", "mean of finals ± 95 % interval, 2 seeds"),
        "3 completed, 1 diverged, 1 cancelled of 5",
        FINALS,
    ),
    "the largest is the best": Awkward(
        search((0, 0, DONE, 0.7), (0, 1, DONE, NAN), (1, 0, DONE, 0.9), (1, 1, DONE, -INF), (1, 2, STOPPED, 5.0)),
        ("adamw", 0, "0.9", ONE_SEED),
        "4 completed, 1 stopped of 5",
        MAXIMIZE,
    ),
    "ties within an arm and between arms": Awkward(
        search((1, 0, DONE, 1.0), (1, 1, DONE, 1.0), (0, 3, DONE, 1.0), (0, 2, DONE, 1.0)),
        ("adamw", 0, "1", ONE_SEED),
        "4 completed of 4",
    ),
    "means that a database rounds otherwise": Awkward(
        search(
            (1, 0, DIVERGED, NAN),
            *((0, point, DONE, value) for point in (5, 4, 3) for value in (0.1, 0.2, 0.3)[:: 1 - 2 * (point % 2)]),
        ),
        ("muon", 5, "0.2 ± 0.25", "best search value: mean ± 95 % interval, 3 seeds"),
        "9 completed, 1 diverged of 10",
        {"search": {"sampler": "random", "points": 8, "seeds": 3}},
    ),
    "values near the largest number": Awkward(
        search((0, 0, DONE, 1.7e308), (0, 0, DONE, 1.7e308), (1, 0, DONE, -1.7e308), (1, 0, DONE, 1.7e308)),
        ("adamw", 0, "0 ± Infinity", MEAN_OF_TWO),
        "4 completed of 4",
        TWO_SEEDS,
    ),
    "two objectives": Awkward(
        search((0, 0, DONE, 0.5), (1, 0, DONE, 0.7)),
        None,
        "2 completed of 2",
        {"objective": [MAXIMIZE["objective"], {"metric": "loss", "mode": "minimize"}]},
        "with two objectives no point is simply the best",
    ),
}


@dataclass
class Doors:
    """A campaign in a ledger with a service, pages and commands before it."""

    bench: Bench
    data: DataDirectory
    campaign_id: str

    def get(self, path: str, **options: Any) -> Any:
        answer = self.bench.client.get(path, **options)
        assert answer.status_code == 200, answer.text
        return answer

    def json(self, part: str = "") -> Any:
        return self.get(f"/v1/campaigns/{self.campaign_id}{part}").json()

    def page(self, path: str) -> str:
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.get(path).text)).split())

    def spectune(self, *arguments: str) -> str:
        result = CliRunner().invoke(application, [*arguments], env={"COLUMNS": "60"})
        return result.output if result.exception is None or result.output else str(result.exception)

    @property
    def specification(self) -> Specification:
        return restore(self.bench.ledger.campaign(self.campaign_id).specification)


def enter(bench: Bench, awkward: Awkward) -> str:
    """Enter a campaign in the ledger, seed after seed of each point, and let it come to its end."""
    campaign_id = bench.submit(**awkward.changes)
    attempt = bench.ledger.begin_attempt(campaign_id)
    records, seeds = [], dict[tuple[int, int, str], int]()
    for number, (arm, point, phase, state, objective) in enumerate(awkward.trials):
        seed = seeds[arm, point, phase] = seeds.get((arm, point, phase), -1) + 1
        ask = {"origin": "sampler", "coordinates": {"lr": point / 8}, **({} if phase == "search" else {"phase": phase})}
        place: dict[str, Any] = {"arm": arm, "point": point, "seed_index": seed, "ask": ask}
        records.append(entries.trial_created(trial=number, config={"lr": 0.01 * (point + 1)}, at=1, **place))
        if objective is not None:
            metrics = {"validation_loss": objective, "loss": 1.0}
            told: dict[str, Any] = {"metrics": metrics, "objective": objective, "device_seconds": 0.5}
            records.append(entries.observation(trial=number, step=60, produced_at=1, **told))
        if state is not RUNNING:
            records.append(entries.trial_moved(trial=number, state=state, reason="x", at=2))
    bench.ledger.append(campaign_id, attempt, list(enumerate(records, start=1)))
    for event in (CampaignEvent.LAUNCH, CampaignEvent.CLAIM):
        bench.ledger.move_campaign(campaign_id, event, reason="x")
    bench.ledger.move_campaign(campaign_id, CampaignEvent.SUCCEED, reason=awkward.reason)
    return campaign_id


@pytest.fixture(params=AWKWARD.values(), ids=AWKWARD.keys())
def awkward(request: pytest.FixtureRequest) -> Awkward:
    found: Awkward = request.param
    return found


@pytest.fixture
def doors(awkward: Awkward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    with make_bench(tmp_path, Settings(), pages=FakePages()) as bench:
        add_pages(bench.application)
        client = Client("http://testserver")
        client._http.close()
        client._http = bench.client
        monkeypatch.setattr("spectune.service.cli.remote._client", lambda _: client)
        monkeypatch.setattr(bench.client, "close", lambda: None)
        yield Doors(bench, DataDirectory(tmp_path), enter(bench, awkward))


def test_every_document_names_the_same_best_point(doors: Doors, awkward: Awkward) -> None:
    (listed,) = doors.get("/v1/campaigns").json()["campaigns"]
    assert listed == doors.json()
    record, trials = doors.bench.ledger.campaign(doors.campaign_id), doors.bench.ledger.trials(doors.campaign_id)
    observations = doors.bench.ledger.observations(doors.campaign_id)
    outcome = outcome_document(doors.specification, record, trials, wall_seconds=1.0, observations=observations)
    report = doors.json("/report")
    assert listed["best"] == outcome["best"] == report["best"]
    assert listed["why_no_best"] == outcome["why_no_best"] == report["why_no_best"] == awkward.why_none
    assert listed["progress"]["text"] == outcome["progress"] == report["progress"] == awkward.progress
    best = doors.json("/best")
    assert best["why_no_best"] == awkward.why_none
    if awkward.best is None:
        assert listed["best"] is best["best"] is None
        return
    arm, point, _, how = awkward.best
    assert (listed["best"]["arm"], listed["best"]["point"], listed["best"]["how"]) == (arm, point, how)
    same = ("arm", "point", "trials", "value", "half_width")
    assert {name: best["best"][name] for name in same} == {name: listed["best"][name] for name in same}
    assert (best["how"], best["phase"]) == (how, listed["best"]["phase"])
    (standing,) = [each for each in doors.json("/leaderboard")["arms"] if each["arm"] == arm]
    assert standing["finals" if best["phase"] == "final" else "points"][0] == best["best"]


def test_every_text_says_it_in_the_same_words(doors: Doors, awkward: Awkward) -> None:
    base, campaign_id = f"/campaigns/{doors.campaign_id}", doors.campaign_id
    record, trials = doors.bench.ledger.campaign(campaign_id), doors.bench.ledger.trials(campaign_id)
    console = Console(file=io.StringIO(), width=400)
    observations = doors.bench.ledger.observations(campaign_id)
    show_outcome(console, doors.specification, record, trials, data=doors.data, observations=observations)
    with ProgressDisplay(doors.specification, console) as display:
        display.show(record, trials)
    assert isinstance(console.file, io.StringIO)
    here = ("--data-dir", str(doors.data.root))
    report_page = doors.get(f"/v1{base}/report", headers={"Accept": "text/html"}).text.partition("<body>")[2]
    texts = {
        "run": console.file.getvalue(),
        "list": doors.spectune("list"),
        "show": doors.spectune("show", campaign_id),
        "report": doors.spectune("report", campaign_id, *here),
        "list page": doors.page("/"),
        "campaign page": doors.page(base + "/standing"),
        "report page": html.unescape(report_page),
        "best": doors.spectune("best", campaign_id, *here),
    }
    for door, text in texts.items():
        text = " ".join(text.replace("│", " ").split())
        if door != "best":
            assert awkward.progress in text, door
        if awkward.best is None:
            assert awkward.why_none in text or "Pareto front" in text, door
            continue
        arm, _, value, how = awkward.best
        assert value in text, (door, text)
        assert how in text, (door, text)
        assert arm in text, door
        assert "deviation" not in text.lower(), door


def test_trackers_and_bundles_choose_the_same_point(doors: Doors, awkward: Awkward) -> None:
    tracker = FakeTracker()
    Projector(doors.bench.ledger, tracker, doors.campaign_id).catch_up()
    summary = tracker.summaries[doors.campaign_id]
    assert not any(math.isnan(value) for value in summary.values())
    listed = doors.json()["best"]
    bundle = read_bundle(doors.get(f"/v1/campaigns/{doors.campaign_id}/bundle").content)
    chosen = [(each.arm, each.number) for each in best_trials(bundle)]
    if listed is None:
        assert not summary.keys() & {"best", "best_final"}
    elif listed["phase"] == "final":
        assert summary["best_final"] == pytest.approx(listed["value"], rel=0, abs=0)
        assert "best" in summary
    else:
        assert summary["best"] == listed["value"]
        assert "best_final" not in summary
    for each in doors.json("/leaderboard")["arms"]:
        ranked = each["finals"] or each["points"]
        own = [(each["arm"], number) for number in ranked[0]["trials"]] if ranked else []
        assert [which for which in chosen if which[0] == each["arm"]] == own
    if listed is not None and listed["phase"] == "final":
        assert {number for _, number in chosen} >= set(listed["trials"])


def test_an_arms_own_best_is_its_finals_if_it_has_them(doors: Doors, awkward: Awkward) -> None:
    here = ("--data-dir", str(doors.data.root))
    for each in doors.json("/leaderboard")["arms"]:
        text = doors.spectune("best", doors.campaign_id, "--arm", each["arm"], *here)
        ranked = each["finals"] or each["points"]
        if awkward.why_none == TWO_OBJECTIVES or not ranked:
            assert (awkward.why_none if awkward.why_none == TWO_OBJECTIVES else NONE_COMPLETED) in text
        else:
            assert yaml.safe_load(text)["lr"] == ranked[0]["config"]["lr"]
            assert f"point {ranked[0]['point']}:" in text


def test_a_campaign_speaks_of_its_own_backlog(tmp_path: Path) -> None:
    with make_bench(tmp_path, Settings(), pages=FakePages()) as bench:
        add_pages(bench.application)
        told, other = (enter(bench, AWKWARD["the largest is the best"]) for _ in range(2))
        backlog: Callable[[str], Any] = lambda name: bench.client.get(f"/v1/campaigns/{name}/tracking").json()  # noqa: E731
        page: Callable[[str], str] = lambda name: bench.client.get(f"/campaigns/{name}/standing").text  # noqa: E731
        whole = bench.ledger.campaign(told).sequence
        bench.ledger.set_cursor(MLFLOW, told, whole)
        assert (backlog(told)["num_untold"], "in MLflow yet" in page(told)) == (0, False)
        assert backlog(other)["num_untold"] == whole
        assert f"{whole} changes are not in MLflow yet" in page(other)
        bench.ledger.set_cursor(MLFLOW, other, whole - 1)
        assert "1 change is not in MLflow yet" in page(other)


def test_no_number_of_a_report_is_in_words_that_others_do_not_use(tmp_path: Path) -> None:
    with make_bench(tmp_path, Settings()) as bench:
        campaign_id = enter(bench, AWKWARD["nothing but diverged trials"])
        text = bench.client.get(f"/v1/campaigns/{campaign_id}/report").text
        strings = re.findall(r'"(-?[a-z]{3,8})"(?!:)', text, re.IGNORECASE)
        assert not {"nan", "inf", "-inf"} & set(strings)
        assert json.loads(text)["arms"][0]["curve"]["median"] == ["Infinity"]
