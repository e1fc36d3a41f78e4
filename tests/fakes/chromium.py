"""Debian's Chromium, driven by Playwright, with the pictures of what it showed kept as build artefacts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BINARY = Path("/usr/bin/chromium")
PICTURES = Path(__file__).parents[2] / "build" / "pages"  # git ignores it
SECONDS = 60.0


@contextmanager
def browser() -> Iterator[Any]:
    """Open a window as a Playwright page; without a browser the test is skipped, except in continuous integration."""
    if not BINARY.exists():
        assert not os.environ.get("CI"), "continuous integration needs the package chromium"
        pytest.skip(f"no browser is installed: {BINARY}")
    if os.environ.get("CI"):
        import playwright.sync_api as playwright
    else:
        playwright = pytest.importorskip("playwright.sync_api", reason="Playwright's Python package is not installed")
    with playwright.sync_playwright() as started:
        window = started.chromium.launch(executable_path=str(BINARY), args=["--no-sandbox"])
        page = window.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(SECONDS * 1000)
        yield page
        window.close()


def keep_picture(page: Any, name: str) -> Path:
    """Keep what the page shows now."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    page.screenshot(path=str(path))
    return path
