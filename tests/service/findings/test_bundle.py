"""A bundle holds a campaign whole, the same bytes every time, and is refused where anything in it has changed."""

from __future__ import annotations

import io
import math
import zipfile

import pytest

from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.campaign.specification.specification import restore
from spectune.service.errors import BundleError
from spectune.service.findings.bundle import read_bundle, write_bundle
from spectune.service.findings.documents import campaign_documents
from spectune.service.ledger import Ledger
from tests.fakes.campaigns import STEPS, enter_campaign


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ledger")
    written = []
    for _ in range(2):
        with Ledger.at(folder / "ledger.sqlite") as ledger:
            if not written:
                enter_campaign(ledger, "c-1", num_trials=6)
            record, trials, observations = ledger.campaign("c-1"), ledger.trials("c-1"), ledger.observations("c-1")
        documents = campaign_documents(record, trials, observations, catalog=installed_catalog())
        written.append(write_bundle(documents, restore(record.specification), trials, observations))
    assert written[0] == written[1]
    return written[0]


def changed(bundle: bytes, name: str, content: bytes | None) -> bytes:
    """Write the bundle again with another content of a file, or without it."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(written, "w") as new:
        for each in {*old.namelist(), name}:
            if each != name:
                new.writestr(each, old.read(each))
            elif content is not None:
                new.writestr(each, content)
    return written.getvalue()


def test_every_trial_is_there_with_its_curve_and_its_seed(bundle: bytes) -> None:
    found = read_bundle(bundle)
    assert [(trial.number, trial.arm, trial.phase) for trial in found.trials][:2] == [
        (0, "muon", "search"),
        (1, "adamw", "search"),
    ]
    assert len(found.trials) == 6
    assert max(found.trials[0].curve) == STEPS == found.specification.task.steps
    assert found.trials[0].curve[20]["validation_loss"] == pytest.approx(math.exp(-0.2))


@pytest.mark.parametrize("name", ["trials.jsonl", "campaign.yaml", "report.json", "manifest.json", "more.txt"])
def test_a_file_that_is_missing_changed_or_new_is_refused_by_name(bundle: bytes, name: str) -> None:
    expected = r"no manifest\.json" if name == "manifest.json" else f"missing or has been changed: got {name}"
    if name != "more.txt":
        with pytest.raises(BundleError, match=expected):
            read_bundle(changed(bundle, name, None))
    if name != "manifest.json":
        with pytest.raises(BundleError, match=expected):
            read_bundle(changed(bundle, name, b"{}"))


def test_a_torn_file_and_a_file_that_is_no_bundle_are_refused(bundle: bytes) -> None:
    for content in (b"", b"not a zip", bundle[: len(bundle) // 2]):
        with pytest.raises(BundleError, match="torn or no bundle"):
            read_bundle(content)


def test_a_later_format_is_refused(bundle: bytes) -> None:
    with pytest.raises(BundleError, match="cannot read: got 2"):
        read_bundle(changed(bundle, "manifest.json", b'{"format": 2, "files": {}}'))
