"""The one place where the service's parts meet: ledger, launcher and tracker for a data directory."""

from __future__ import annotations

from collections.abc import Sequence

from service.data_directory import DataDirectory
from service.embedded import EmbeddedCampaign, Projection
from service.launchers import SubprocessLauncher
from service.ledger import Ledger
from service.tracking import links
from service.tracking.projector import Projector


def embedded_campaign(data: DataDirectory, ledger: Ledger, campaign_id: str) -> EmbeddedCampaign:
    """Wire a campaign that this process owns."""
    return EmbeddedCampaign(ledger, SubprocessLauncher(data), data=data, campaign_id=campaign_id)


def embedded_projection(data: DataDirectory, campaign_ids: Sequence[str]) -> Projection:
    """Wire the projection of campaigns into the data directory's MLflow store, the running one last."""
    return Projection(lambda: embedded_projectors(data, campaign_ids))


def embedded_projectors(data: DataDirectory, campaign_ids: Sequence[str]) -> list[Projector]:
    """Wire projectors into the data directory's MLflow store."""
    from service.tracking.mlflow_tracker import MlflowTracker  # two seconds of imports, not wanted before

    tracker = MlflowTracker.connect(
        data.mlflow_uri, address=links.EMBEDDED_ADDRESS, artifact_location=data.mlflow_artifacts.as_uri()
    )
    ledger = Ledger.at(data.ledger)
    return [Projector(ledger, tracker, campaign_id) for campaign_id in campaign_ids]
