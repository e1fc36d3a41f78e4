"""The pages in a real browser: figures are drawn, events arrive, buttons act, a key is given once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from spectune.service.campaign.model.lifecycle import CampaignState, TrialState
from spectune.service.ledger import entries
from spectune.service.ledger.access import Role
from spectune.service.settings import Settings
from spectune.service.web import add_pages
from tests.fakes.chromium import SECONDS, browser, keep_picture
from tests.service.api.conftest import Bench, make_bench

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")]


@contextmanager
def served(bench: Bench) -> Iterator[str]:
    """Serve an application on loopback and give its address."""
    server = uvicorn.Server(
        uvicorn.Config(bench.application, host="127.0.0.1", port=0, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    (listening,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join(20)


def report_another(bench: Bench, campaign_id: str, number: int, objective: float) -> None:
    """Let a trial that waits report once and complete."""
    place: dict[str, Any] = {"trial": number, "objective": objective, "produced_at": 3}
    told = entries.observation(**place, step=60, metrics={"validation_loss": objective}, device_seconds=0.5)
    moved = entries.trial_moved(trial=number, state=TrialState.COMPLETED, reason="end_of_schedule", at=4)
    bench.ledger.append(campaign_id, 1, [(101, told), (102, moved)])


def test_a_campaign_is_followed_and_led_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=SECONDS * 1000)
    with make_bench(tmp_path, Settings()) as bench, browser() as page:
        add_pages(bench.application)
        campaign_id = bench.submit(name="shown")
        bench.add_trials(campaign_id, [3.0, 2.5, 2.0, 1.5, None])
        mistakes: list[str] = []
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        page.on("response", lambda answer: mistakes.append(answer.url) if answer.status >= 400 else None)
        page.on("console", lambda said: mistakes.append(said.text) if said.type == "error" else None)
        with served(bench) as address:
            own = (address, "data:", "blob:", "about:")
            page.on("request", lambda asked: None if asked.url.startswith(own) else mistakes.append(asked.url))
            page.goto(address)
            page.get_by_role("link", name="shown").click()
            expect(page.locator("#standing")).to_contain_text("4 completed of 16")
            expect(page.locator(".figure svg.main-svg").first).to_be_visible()
            titles = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map(each => each.dataset.title)")
            assert titles
            assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]
            expect(page.locator("#trials tbody tr")).to_have_count(5)
            report_another(bench, campaign_id, 4, 0.125)
            expect(page.locator("#standing")).to_contain_text("5 completed of 16")  # without a click
            expect(page.locator("#standing")).to_contain_text("0.125")
            keep_picture(page, "campaign_page")
            page.get_by_role("button", name="Pause").click()
            expect(page.locator("#standing .state")).to_have_text("paused")
            page.locator("#trials").get_by_role("link", name="4", exact=True).click()
            expect(page.get_by_role("heading", name="Trial 4")).to_be_visible()
            expect(page.locator(".figure svg.main-svg").first).to_be_visible()
            page.get_by_role("link", name="New campaign").click()
            page.get_by_role("button", name="Preview").click()
            expect(page.locator("#answer")).to_contain_text("32 points")
            page.get_by_role("button", name="Submit").click()
            expect(page.get_by_role("heading", name="muon-or-adamw")).to_be_visible()
            page.goto("about:blank")  # the page would be refused from now on
            key = bench.ledger.create_key(owner="local", role=Role.SUBMITTER)
            page.goto(address)
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Log in").click()
            page.get_by_role("link", name="muon-or-adamw").click()
            page.on("dialog", lambda dialog: dialog.accept())
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("#standing .state")).to_have_text("cancelling")
            page.goto("about:blank")  # nobody follows events while the server ends
        assert not mistakes
        assert bench.ledger.campaign(campaign_id).state is CampaignState.PAUSED
