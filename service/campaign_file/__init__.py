"""Campaign files, read and written: JSON if the text begins with `{`, else YAML 1.2."""

from spectune.service.campaign_file.document import parse_document, read_document
from spectune.service.campaign_file.yaml_text import write_yaml

__all__ = ["parse_document", "read_document", "write_yaml"]
