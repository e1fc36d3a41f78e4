"""A campaign's documents come to stand beside its run: once it has ended, whole, and again after any failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.ledger import Ledger
from spectune.service.tracking.attachments import MlflowAttachments
from spectune.service.tracking.links import ATTACHMENTS
from spectune.service.tracking.mlflow_tracker import EXPERIMENT, MlflowTracker
from spectune.service.tracking.projector import Projector
from tests.fakes.campaigns import EVERY, enter_campaign
from tests.fakes.mlflow_server import PrivateMlflow, place_empty_store

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


def documents(
    campaign: CampaignRecord, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> dict[str, bytes]:
    assert len(observations) == sum(trial.last_step // EVERY for trial in trials)
    told = f"{campaign.state} with {len(trials)} trials\n"
    texts = {"best.yaml": told, "report.html": "<h1>ä</h1>", "description.md": f"Spectune: {told}"}
    return {name: text.encode() for name, text in texts.items()}


class FlakyClient:
    """A client whose n-th upload fails."""

    def __init__(self, client: MlflowClient, *, fail_at: int) -> None:
        self._client = client
        self._fail_at = fail_at
        self.num_uploads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def log_artifact(self, *arguments: str) -> None:
        self.num_uploads += 1
        if self.num_uploads == self._fail_at:
            raise MlflowException("the disk is full")
        self._client.log_artifact(*arguments)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.at(tmp_path / "ledger.sqlite") as ledger:
        enter_campaign(ledger, "c-1", num_trials=4)
        yield ledger


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{place_empty_store(tmp_path / 'mlflow.sqlite')}"


def projector(ledger: Ledger, uri: str, client: Any, location: str | None) -> Projector:
    tracker = MlflowTracker.connect(uri, address=uri, artifact_location=location)
    return Projector(ledger, tracker, "c-1", attachments=MlflowAttachments(ledger, client, documents))


def attached(client: MlflowClient) -> dict[str, str]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'campaign' and tags.campaign = 'c-1'")
    names = [each.path for each in client.list_artifacts(run.info.run_id)]
    return {name: Path(client.download_artifacts(run.info.run_id, name)).read_text(encoding="utf-8") for name in names}


def note(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'campaign'")
    return str(run.data.tags["mlflow.note.content"])


WHOLE = {
    "best.yaml": "SUCCEEDED with 4 trials\n",
    "report.html": "<h1>ä</h1>",
    "description.md": "Spectune: SUCCEEDED with 4 trials\n",
}


@pytest.mark.parametrize("fail_at", [0, 1, 2])
def test_an_upload_that_fails_is_made_up_for_and_nothing_is_there_twice(
    ledger: Ledger, store: str, tmp_path: Path, fail_at: int
) -> None:
    client: Any = FlakyClient(MlflowClient(tracking_uri=store), fail_at=fail_at)
    following = projector(ledger, store, client, (tmp_path / "artifacts").as_uri())
    following.catch_up()
    if fail_at:
        with pytest.raises(MlflowException, match="full"):
            following.attach()
        assert ledger.cursor(ATTACHMENTS, "c-1") == 0
    following.attach()
    assert attached(client) == WHOLE
    uploads = client.num_uploads
    following.attach()
    assert client.num_uploads == uploads


def test_a_campaign_that_goes_on_gets_its_documents_anew_at_its_next_end(
    ledger: Ledger, store: str, tmp_path: Path
) -> None:
    client = MlflowClient(tracking_uri=store)
    following = projector(ledger, store, client, (tmp_path / "artifacts").as_uri())
    following.catch_up()
    following.attach()
    ledger.move_campaign("c-1", CampaignEvent.EXTEND, reason="extended")
    following.catch_up()
    following.attach()
    assert attached(client) == WHOLE
    ledger.move_campaign("c-1", CampaignEvent.CANCEL, reason="user")
    ledger.move_campaign("c-1", CampaignEvent.VANISH, reason="user")
    following.catch_up()
    following.attach()
    assert attached(client)["best.yaml"] == "CANCELLED with 4 trials\n"
    assert note(client).startswith("Spectune: CANCELLED with 4 trials\n")


def test_a_campaigns_run_is_described_with_links_that_hold_wherever_mlflow_is_unless_a_person_has_described_it(
    ledger: Ledger, store: str, tmp_path: Path
) -> None:
    client = MlflowClient(tracking_uri=store)
    following = projector(ledger, store, client, (tmp_path / "artifacts").as_uri())
    following.catch_up()
    following.attach()
    assert note(client).startswith("Spectune: SUCCEEDED with 4 trials\n\n[Trials and their curves](#/experiments/")
    assert "[The best, compared](#/compare-runs?" in note(client)
    assert "/artifacts?" in note(client)
    assert len(note(client)) < 8000
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'campaign'")
    client.set_tag(run.info.run_id, "mlflow.note.content", "the one with the wrong data")
    ledger.set_cursor(ATTACHMENTS, "c-1", 0)
    following.attach()
    assert note(client) == "the one with the wrong data"


def test_documents_go_through_a_server_that_serves_artifacts(ledger: Ledger, mlflow_server: PrivateMlflow) -> None:
    client = MlflowClient(tracking_uri=mlflow_server.address)
    following = projector(ledger, mlflow_server.address, client, None)
    following.catch_up()
    following.attach()
    assert attached(client) == WHOLE
