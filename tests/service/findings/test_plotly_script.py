"""Plotly's script names no host, and reports carry a policy that lets them open none."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spectune.service.campaign.specification.catalog import installed_catalog
from spectune.service.data_directory import DataDirectory
from spectune.service.findings.documents import campaign_documents
from spectune.service.findings.plotly_script import CONFIG, plotly_script
from spectune.service.ledger import Ledger
from spectune.service.web.rendering import HEADERS
from spectune.service.web.routes import ASSETS, asset
from tests.fakes.campaigns import enter_campaign
from tests.fakes.chromium import browser

ADDRESS = re.compile(r"""["'`=(]\s*(?:https?:)?//(?!www\.w3\.org/)[a-z][^"'`\s]*\.[^"'`\s]*""")
NAMES_OF_XML = "http://www.w3.org/"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a campaign with finals, and with a name that would like to be a script."""
    data = DataDirectory(tmp_path_factory.mktemp("data"))
    with Ledger.at(data.ledger) as ledger:
        enter_campaign(ledger, "c", num_trials=12, name="</script><script>fetch('https://example.org')</script>")
        record, trials, observations = ledger.campaign("c"), ledger.trials("c"), ledger.observations("c")
    return campaign_documents(record, trials, observations, catalog=installed_catalog())["report.html"]


def test_no_text_of_a_script_is_the_address_of_another_host() -> None:
    for name in ASSETS:
        text = bytes(asset(name).body).decode()
        assert not [each for each in ADDRESS.findall(text) if NAMES_OF_XML not in each], name
    assert 'plotlyServerURL:{valType:"string",dflt:""}' in plotly_script()
    assert "cloud.plotly.com" not in plotly_script()
    assert plotly_script().rstrip().endswith(");")
    assert CONFIG["plotlyServerURL"] == ""


def test_a_new_plotly_with_another_address_would_be_noticed() -> None:
    assert ADDRESS.search('dflt:"https://cloud.plotly.com/newchart"')
    assert ADDRESS.search("m.src=`//cdn.jsdelivr.net/npm/x.svg`")
    assert not ADDRESS.search('xmlns="http://www.w3.org/2000/svg"')


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_report_may_run_its_own_scripts_and_open_no_connection(report: str) -> None:
    tags = _Tags()
    tags.feed(report)
    (policy,) = [str(each["content"]) for tag, each in tags.found if tag == "meta" and "http-equiv" in each]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == rules["connect-src"] == rules["form-action"] == rules["base-uri"] == ["'none'"]
    assert all(source.startswith("'sha256-") for source in rules["script-src"])
    assert [tag for tag, each in tags.found if tag in ("link", "iframe", "img", "a") or "src" in each] == []
    assert "script" not in [tag for tag, _ in tags.found[: [tag for tag, _ in tags.found].index("meta")]]


def test_pages_may_ask_nobody_but_their_own_service() -> None:
    rules = {rule.split()[0]: rule.split()[1:] for rule in HEADERS["Content-Security-Policy"].split(";")}
    assert rules["default-src"] == ["'none'"]
    assert rules["connect-src"] == rules["form-action"] == ["'self'"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_report_from_a_disk_draws_its_charts_and_offers_no_upload(report: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(report, encoding="utf-8")
    with browser() as page:
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_function("document.querySelectorAll('.figure svg.main-svg').length > 0")
        figures = page.locator(".figure").count()
        assert page.locator(".figure .modebar").count() == figures >= 2
        titles = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map(each => each.dataset.title)")
        assert titles
        assert not [title for title in titles if re.search("share|cloud|studio|plotly", title, re.IGNORECASE)]
        assert page.evaluate("document.querySelector('.figure')._context.plotlyServerURL") == ""
        assert (said, [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]) == ([], [])
        attempt = "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
        assert page.evaluate(attempt) == "refused"
        assert "Content Security Policy" in said[-1]
