"""How the tests share two processors: whole campaigns one after another on one, the files of the rest on what is free.

Two whole campaigns at once would take each other's processors, and their waits would prove nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

WHOLE_CAMPAIGNS = "tests/integration"


class CampaignsTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Give a process one file at a time, and all the whole campaigns as if they were one file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return WHOLE_CAMPAIGNS if file.startswith(WHOLE_CAMPAIGNS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> CampaignsTogether:
    """Share the tests out so wherever they run in several processes (`--numprocesses`)."""
    return CampaignsTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the whole campaigns, which take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(WHOLE_CAMPAIGNS))
