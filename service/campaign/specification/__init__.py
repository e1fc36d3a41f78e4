"""The document of a campaign: read, checked, written."""
