"""Everything that a campaign leaves to be read without us, as files: what was asked for, what came of it, with what.

campaign.yaml     the canonical specification; `spectune run campaign.yaml` asks for the same again
best.yaml         the best configuration, and the Python that builds its optimizer; not there before a point completes
description.md    the campaign in a few lines, which MLflow shows above its run
report.json       the report for programs
report.html       the report for people, one file that needs no net
environment.txt   Python and every package that is installed, in the form of a constraints file
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from spectune.service.campaign.analysis.leaderboard import leaderboard
from spectune.service.campaign.analysis.report import make_report
from spectune.service.campaign.model.progress import tally
from spectune.service.campaign.model.records import CampaignRecord, Observation, TrialRecord
from spectune.service.campaign.specification.catalog import Catalog
from spectune.service.campaign.specification.specification import restore
from spectune.service.campaign_file import write_yaml
from spectune.service.errors import NothingToShowError
from spectune.service.findings.best import best_text
from spectune.service.findings.description import description
from spectune.service.findings.page import report_page

_log = logging.getLogger(__name__)


def campaign_documents(
    campaign: CampaignRecord, trials: Sequence[TrialRecord], observations: Sequence[Observation], *, catalog: Catalog
) -> dict[str, str]:
    """Write a campaign's documents, by file name.

    One that cannot be written is left out, and the log says why: the others are worth having without it.

    Args:
        campaign: At rest or not.
        trials: All its trials.
        observations: With two objectives, at least the last one of each trial.
        catalog: What the optimizers take.
    """
    specification = restore(campaign.specification)
    report = make_report(specification, campaign, trials, observations, catalog=catalog)

    standings = leaderboard(trials, num_arms=len(specification.arms), mode=specification.objective.mode)

    return write_each(
        campaign.campaign_id,
        {
            "campaign.yaml": lambda: write_yaml(dict(campaign.specification)),
            "best.yaml": lambda: best_text(specification, campaign, standings, tally(trials)) + "\n",
            "description.md": lambda: description(report, specification),
            "report.json": lambda: json.dumps(report.document(), allow_nan=False, indent=1) + "\n",
            "report.html": lambda: report_page(report, specification, trials),
            "environment.txt": environment_lock,
        },
    )


def environment_lock() -> str:
    """List what is installed here, a package a line, as pip's constraints."""
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    lines = [f"{name}=={version}" for name, version in sorted(found.items(), key=lambda each: each[0].lower())]
    head = f"# Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return "\n".join([head, *lines]) + "\n"


def write_each(campaign_id: str, writers: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """Write documents by name; one without anything to show, or that fails, is left out."""
    documents = {}
    for name, write in writers.items():
        try:
            documents[name] = write()
        except NothingToShowError:
            continue
        except Exception:  # the fault is ours; it would be the same the next time
            _log.exception("campaign %s: %s cannot be written", campaign_id, name)
    return documents
