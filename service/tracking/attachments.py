"""Puts a campaign's documents beside its run in MLflow, once it has ended.

They have a cursor of their own in the ledger, which moves when all of them are there: what fails is tried again, what
is there already is overwritten by the same, and metrics never wait for a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from mlflow import MlflowClient

from service.campaign.records import CampaignRecord, Observation, TrialRecord
from service.ports import FollowedLedger
from service.tracking import links
from service.tracking.mlflow_tracker import EXPERIMENT

Documents = Callable[[CampaignRecord, Sequence[TrialRecord], Sequence[Observation]], Mapping[str, bytes]]


class MlflowAttachments:
    """Attaches documents to the runs of campaigns.

    Args:
        ledger: The truth.
        client: Speaks to MLflow.
        make_documents: Writes a campaign's documents, by file name.
    """

    def __init__(self, ledger: FollowedLedger, client: MlflowClient, make_documents: Documents) -> None:
        self._ledger = ledger
        self._client = client
        self._make_documents = make_documents

    @classmethod
    def connect(cls, ledger: FollowedLedger, tracking_uri: str, make_documents: Documents) -> Self:
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
        run_id = self._run(campaign_id)
        trials = self._ledger.trials(campaign_id)
        documents = self._make_documents(campaign, trials, self._ledger.observations(campaign_id))
        with tempfile.TemporaryDirectory() as folder:
            for name, content in documents.items():
                path = Path(folder) / name
                path.write_bytes(content)
                self._client.log_artifact(run_id, str(path))
        self._ledger.set_cursor(links.ATTACHMENTS, campaign_id, campaign.sequence)

    def _run(self, campaign_id: str) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        condition = f"tags.campaign = '{campaign_id}' and tags.kind = 'campaign'"
        runs = [] if experiment is None else self._client.search_runs([experiment.experiment_id], condition)
        if not runs:
            raise LookupError(f"MLflow does not hold the run of campaign {campaign_id}, which the ledger says it does")
        return str(runs[0].info.run_id)
