"""The links into MLflow open the right pages: a campaign of two hundred trials in a real server and a real browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.findings.documents import campaign_documents
from spectune.service.ledger import Ledger
from spectune.service.ports import CampaignPages
from spectune.service.tracking.attachments import MlflowAttachments
from spectune.service.tracking.mlflow_tracker import MlflowTracker
from spectune.service.tracking.pages import MlflowPages
from spectune.service.tracking.projector import Projector
from tests.fakes.campaigns import enter_campaign, value
from tests.fakes.chromium import browser, keep_picture
from tests.fakes.mlflow_server import PrivateMlflow

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]

NUM_TRIALS = 200
BEST = sorted(range(NUM_TRIALS), key=lambda trial: value(trial, 200, NUM_TRIALS))
ROWS = "[role=row] a[href*='/runs/']"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, mlflow_server: PrivateMlflow) -> tuple[CampaignPages, str]:
    """The pages of a campaign that a real server holds, and the page of its trial 7."""
    address = mlflow_server.address
    with Ledger.at(tmp_path_factory.mktemp("ledger") / "ledger.sqlite") as ledger:
        enter_campaign(ledger, "never-trained-1", num_trials=NUM_TRIALS)
        enter_campaign(ledger, "another-1", num_trials=4)
        tracker = MlflowTracker.connect(mlflow_server.store, address=address)
        attachments = MlflowAttachments.connect(ledger, address, described)
        for campaign_id in ("never-trained-1", "another-1"):
            projector = Projector(ledger, tracker, campaign_id, attachments=attachments)
            projector.catch_up()
            projector.attach()
        found = MlflowPages.connect(address, address=address)
        campaign = ledger.campaign("never-trained-1")
        trial = found.of_trial(campaign, 7)
        assert trial is not None
        return found.of_campaign(campaign), trial


def described(
    campaign: CampaignRecord, trials: Sequence[TrialRecord], observations: Sequence[Observation]
) -> dict[str, bytes]:
    """Write the documents from few trials: what nobody has trained has no importances."""
    told = [each for each in observations if each.trial < 16]
    documents = campaign_documents(campaign, trials[:16], told, catalog=installed_catalog())
    return {name: text.encode() for name, text in documents.items()}


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as page:
        yield page


def open_page(window: Any, address: str | None, text: str) -> None:
    """Open an address and wait for a text; the panel beside it, about a language model, is closed."""
    assert address is not None
    window.goto("about:blank")  # another address behind the # alone does not load anything
    window.goto(address)
    window.get_by_text(text).first.wait_for()
    panel = window.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    if panel.count():
        panel.first.click()


def test_the_campaigns_page_is_that_of_its_run(window: Any, pages: tuple[CampaignPages, str]) -> None:
    open_page(window, pages[0].run, "About this run")
    window.get_by_text("num_trials/completed").first.wait_for()
    link = window.get_by_role("link", name="Trials and their curves")  # of the description
    link.wait_for()
    assert link.evaluate("link => link.href") == pages[0].trials
    text = window.inner_text("body")
    keep_picture(window, "run")
    assert "minimize validation_loss at step 200. SUCCEEDED: 16 completed of 16." in text
    assert window.locator("table", has_text="best search value").count() == 1
    assert "never-trained-1" in text
    assert "Finished" in text
    assert "Child runs" in text
    assert "Evaluation runs" not in text  # what MLflow calls them where it takes them for a language model's


def test_the_trials_page_lists_the_best_first_and_draws_their_loss_curves(
    window: Any, pages: tuple[CampaignPages, str]
) -> None:
    open_page(window, pages[0].trials, "matching runs")
    window.locator("path.js-line").first.wait_for(state="attached")
    window.wait_for_timeout(1000)  # the curves fade in
    keep_picture(window, "trials")
    named = [link.inner_text() for link in window.locator(ROWS).all()]
    assert named[:5] == [f"{('muon', 'adamw')[trial % 2]}/{trial:05d}" for trial in BEST[:5]]
    assert window.locator(".js-plotly-plot").count() >= 3
    lines = window.locator("path.js-line").evaluate_all("paths => paths.map(path => path.getAttribute('d').length)")
    assert sum(length > 100 for length in lines) >= 20  # ten points each, of the first twenty trials
    text = window.inner_text("body")
    for title in ("comparison", "loss/validation", "log10_lr vs. best", "Parallel Coordinates"):
        assert title in text
    colours = window.locator(".scatterlayer .trace path.js-line").evaluate_all(
        "paths => [...new Set(paths.map(path => path.style.stroke))]"
    )
    assert 2 <= len(colours) <= 8, "four shades of each arm"
    assert "another" not in text


def test_the_table_of_trials_has_what_trials_are_compared_by(window: Any, pages: tuple[CampaignPages, str]) -> None:
    """MLflow's own choice is a table without a metric or a parameter."""
    assert pages[0].trials is not None
    open_page(window, pages[0].trials.replace("=CHART", "=TABLE"), "matching runs")
    window.get_by_text("device_seconds").first.wait_for()
    keep_picture(window, "table")
    text = window.inner_text("body")
    for column in ("best", "final", "steps", "device_seconds", "lr", "optimizer", "state", "COMPLETED"):
        assert column in text
    assert f"{value(BEST[0], 200, NUM_TRIALS):.6f}"[:6] in text


def test_the_comparison_is_of_the_best_twenty(window: Any, pages: tuple[CampaignPages, str]) -> None:
    open_page(window, pages[0].best, "Comparing 20 Runs from 1 Experiment")
    window.get_by_text("Run details").first.wait_for()
    window.wait_for_timeout(1000)
    keep_picture(window, "best")
    text = window.inner_text("body")
    for trial in BEST[:20]:
        assert f"{('muon', 'adamw')[trial % 2]}/{trial:05d}" in text
    assert f"/{BEST[20]:05d}" not in text


def test_a_trials_page_is_that_of_its_run(window: Any, pages: tuple[CampaignPages, str]) -> None:
    open_page(window, pages[1], "About this run")
    assert "adamw/00007" in window.inner_text("body")


def test_the_address_of_the_comparison_is_short_enough_for_every_browser_and_proxy(
    pages: tuple[CampaignPages, str],
) -> None:
    assert pages[0].best is not None
    assert len(pages[0].best) < 2000
