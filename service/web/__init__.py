"""The service as pages for people: written here, refreshed by htmx, drawn by Plotly; they act through the API."""

from spectune.service.web.routes import add_pages

__all__ = ["add_pages"]
