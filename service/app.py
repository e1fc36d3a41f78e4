"""The one place where the service's parts meet: ledger, launcher and tracker for a data directory."""

from __future__ import annotations

from service.data_directory import DataDirectory
from service.embedded import EmbeddedCampaign, Projection
from service.launchers import SubprocessLauncher
from service.ledger import Ledger
from service.tracking import links
from service.tracking.projector import Projector


def embedded_campaign(data: DataDirectory, ledger: Ledger, campaign_id: str) -> EmbeddedCampaign:
    """Wire a campaign that this process owns."""
    return EmbeddedCampaign(ledger, SubprocessLauncher(data), data=data, campaign_id=campaign_id)


def embedded_projection(data: DataDirectory, campaign_id: str) -> Projection:
    """Wire the projection of a campaign into the data directory's MLflow store."""
    return Projection(lambda: embedded_projector(data, campaign_id))


def embedded_projector(data: DataDirectory, campaign_id: str) -> Projector:
    """Wire a projector into the data directory's MLflow store."""
    from service.tracking.mlflow_tracker import MlflowTracker  # two seconds of imports, not wanted before

    tracker = MlflowTracker(
        data.mlflow_uri, address=links.EMBEDDED_ADDRESS, artifact_location=data.mlflow_artifacts.as_uri()
    )
    return Projector(Ledger.at(data.ledger), tracker, campaign_id)
