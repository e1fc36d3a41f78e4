"""Puts a campaign's documents beside its run in MLflow, and its description above it, once it has ended.

They have a cursor of their own in the ledger, which moves when all of them are there: what fails is tried again, what
is there already is overwritten by the same, and metrics never wait for a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.ports import TrackedLedger
from spectune.service.tracking import links
from spectune.service.tracking.mlflow_tracker import EXPERIMENT
from spectune.service.tracking.pages import MlflowPages

DESCRIPTION: Final = "description.md"
"""The document that is the run's description, too; by its beginning it is told from a person's."""
_LONGEST: Final = 5000  # with addresses of 2000 it is within MLflow's 8000
Documents = Callable[[CampaignRecord, Sequence[TrialRecord], Sequence[Observation]], Mapping[str, bytes]]


class MlflowAttachments:
    """Attaches documents to the runs of campaigns.

    Args:
        ledger: The truth.
        client: Speaks to MLflow.
        make_documents: Writes a campaign's documents, by file name.
    """

    def __init__(self, ledger: TrackedLedger, client: MlflowClient, make_documents: Documents) -> None:
        self._ledger = ledger
        self._client = client
        self._make_documents = make_documents

    @classmethod
    def connect(cls, ledger: TrackedLedger, tracking_uri: str, make_documents: Documents) -> Self:
        """Speak to the MLflow behind a tracking address."""
        return cls(ledger, MlflowClient(tracking_uri=tracking_uri), make_documents)

    def attach(self, campaign_id: str) -> None:
        """Attach the documents of a campaign that has ended, unless they are there; its run must be.

        Raises:
            MlflowException: MLflow cannot be reached or refuses; the next call tries again.
        """
        campaign = self._ledger.campaign(campaign_id)
        if not campaign.state.is_terminal or self._ledger.cursor(links.ATTACHMENTS, campaign_id) >= campaign.sequence:
            return
        experiment, run = self._run(campaign_id)
        trials = self._ledger.trials(campaign_id)
        documents = self._make_documents(campaign, trials, self._ledger.observations(campaign_id))
        with tempfile.TemporaryDirectory() as folder:
            for name, content in documents.items():
                path = Path(folder) / name
                path.write_bytes(content)
                self._client.log_artifact(run.info.run_id, str(path))
        self._describe(experiment, run, documents.get(DESCRIPTION, b"").decode(), campaign)
        self._ledger.set_cursor(links.ATTACHMENTS, campaign_id, campaign.sequence)

    def _describe(self, experiment: Experiment, run: Run, text: str, campaign: CampaignRecord) -> None:
        """Describe the run, unless a person has."""
        present = run.data.tags.get(MLFLOW_RUN_NOTE, "")
        if not text or (present and not present.startswith(_beginning(text))):
            return
        pages = MlflowPages(self._client, "").in_experiment(experiment, campaign)  # without a host they hold everywhere
        named = {"Trials and their curves": pages.trials, "The best, compared": pages.best}
        named["Report, best configuration and bundle"] = str(pages.run).replace("?", "/artifacts?", 1)
        told = " · ".join(f"[{name}]({page.lstrip('/')})" for name, page in named.items() if page)
        first, gap, rest = text[:_LONGEST].partition("\n\n")
        self._client.set_tag(run.info.run_id, MLFLOW_RUN_NOTE, f"{first.rstrip()}\n\n{told}\n{gap}{rest}".strip())

    def _run(self, campaign_id: str) -> tuple[Experiment, Run]:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        condition = f"tags.campaign = '{campaign_id}' and tags.kind = 'campaign'"
        runs = [] if experiment is None else self._client.search_runs([experiment.experiment_id], condition)
        if experiment is None or not runs:
            raise LookupError(f"MLflow does not hold the run of campaign {campaign_id}, which the ledger says it does")
        return experiment, runs[0]


def _beginning(text: str) -> str:
    """Return what a description of ours begins with."""
    return text.partition(":")[0]
