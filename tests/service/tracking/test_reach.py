"""An MLflow behind a password and behind https: it is used as MLflow's own variables say, and a mistake is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from spectune.service.errors import TrackingError
from spectune.service.ledger import Ledger
from spectune.service.tracking.attachments import MlflowAttachments
from spectune.service.tracking.health import problem_with
from spectune.service.tracking.mlflow_tracker import EXPERIMENT, MlflowTracker
from spectune.service.tracking.pages import MlflowPages
from spectune.service.tracking.projector import Projector
from tests.conftest import MLFLOW_PASSWORD
from tests.fakes.campaigns import enter_campaign
from tests.fakes.mlflow_server import PrivateMlflow
from tests.fakes.tls import https_before, make_authority

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

PASSWORD = MLFLOW_PASSWORD
WRONG = "wrong-horse-battery"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.at(tmp_path / "ledger.sqlite") as ledger:
        enter_campaign(ledger, "c-1", num_trials=4)
        yield ledger


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


def project(ledger: Ledger, address: str) -> list[str]:
    """Project the campaign with its documents, and list the names of its runs."""
    attachments = MlflowAttachments.connect(ledger, address, lambda *_: {"best.yaml": b"lr: 1\n"})
    projector = Projector(ledger, MlflowTracker.connect(address, address=address), "c-1", attachments=attachments)
    ledger.set_cursor("mlflow", "c-1", 0)
    projector.catch_up()
    projector.attach()
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id]))


RUNS = ["adamw/00001", "adamw/00003", "c-1", "muon/00000", "muon/00002"]


@pytest.mark.usefixtures("admin")
def test_a_server_with_a_password_is_written_and_linked_to(ledger: Ledger, guarded_mlflow: PrivateMlflow) -> None:
    assert problem_with(guarded_mlflow.address) is None
    assert project(ledger, guarded_mlflow.address) == RUNS
    pages = MlflowPages.connect(guarded_mlflow.address, address="https://mlflow.example")
    campaign = pages.of_campaign(ledger.campaign("c-1"))
    assert campaign.run is not None
    assert campaign.run.startswith("https://mlflow.example/#/experiments/")
    assert PASSWORD not in str(campaign)


@pytest.mark.parametrize("password", [WRONG, None])
def test_a_wrong_password_is_named_as_such_and_never_shown(
    ledger: Ledger, guarded_mlflow: PrivateMlflow, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    if password is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    problem = problem_with(guarded_mlflow.address)
    assert problem is not None
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in problem
    with pytest.raises(TrackingError, match="refuses the user or the password") as refused:
        MlflowPages.connect(guarded_mlflow.address, address=guarded_mlflow.address).of_campaign(ledger.campaign("c-1"))
    with pytest.raises(Exception, match=r"401|authenticated") as failed:
        project(ledger, guarded_mlflow.address)
    assert WRONG not in f"{problem}{refused.value}{failed.value!r}"


@pytest.mark.usefixtures("admin")
def test_a_name_that_the_server_does_not_know_is_a_matter_of_its_allowed_hosts(guarded_mlflow: PrivateMlflow) -> None:
    problem = problem_with(guarded_mlflow.address.replace("127.0.0.1", "localhost"))
    assert problem is not None
    assert "--allowed-hosts" in problem


@pytest.mark.usefixtures("admin")
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_an_authority_of_ones_own_is_trusted_where_mlflows_variable_names_it(
    ledger: Ledger,
    guarded_mlflow: PrivateMlflow,
    certificates: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    trusted, own = certificates
    monkeypatch.setenv(variable, str(trusted))
    with https_before(guarded_mlflow.port, own) as address:
        assert problem_with(address) is None
        assert project(ledger, address) == RUNS


@pytest.mark.usefixtures("admin")
def test_a_certificate_that_is_not_trusted_is_named_as_such(
    guarded_mlflow: PrivateMlflow, certificates: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with https_before(guarded_mlflow.port, certificates[1]) as address:
        untrusted = problem_with(address)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "missing.pem"))
        missing = problem_with(address)
    assert untrusted is not None
    assert "not trusted; MLFLOW_TRACKING_SERVER_CERT_PATH" in untrusted
    assert missing is not None
    assert missing.endswith("missing.pem")


def test_a_server_that_is_away_is_named_with_its_address_and_a_file_is_never_away() -> None:
    assert problem_with("http://127.0.0.1:9") == "MLflow does not answer: got http://127.0.0.1:9"
    assert problem_with("sqlite:////anywhere/mlflow.sqlite") is None
