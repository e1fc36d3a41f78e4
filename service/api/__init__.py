"""The service over HTTP, `/v1`: resources and verbs as `docs/openapi.json` describes them."""

from spectune.service.api.application import create_application

__all__ = ["create_application"]
