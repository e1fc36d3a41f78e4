"""The pages over a ledger, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spectune.service.settings import Settings
from spectune.service.web import add_pages
from tests.service.api.conftest import Bench, make_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with make_bench(tmp_path, Settings()) as bench:
        add_pages(bench.application)
        yield bench
