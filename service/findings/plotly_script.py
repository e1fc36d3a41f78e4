"""Plotly's script as pages and reports carry it: it names no host that a chart could open or send anything to.

As it is delivered it offers to upload each chart to a service of its maker's, and knows the addresses of map tiles,
fonts, icons and shapes of countries. Ours are charts of numbers: they need none of it, so every address that stands in
a text of the script is emptied. Names of XML (www.w3.org) are no addresses and stay; so do licenses, in comments.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final

_ADDRESS: Final = re.compile(r"""(?<=["'`])https?://(?!www\.w3\.org/)[^/"'`\s<>]+""")
_UPLOAD: Final = re.compile(r'(plotlyServerURL:\{valType:"string",dflt:")[^"]*(")')
_NOWHERE: Final = "about:blank#"
CONFIG: Final[dict[str, Any]] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud"],
    "plotlyServerURL": "",
    "showSendToCloud": False,
}


@cache
def plotly_script() -> str:
    """Return the script; the settings of every chart that it will draw are part of it."""
    from plotly.offline import get_plotlyjs  # a second of imports

    script = _UPLOAD.sub(r"\1\2", str(get_plotlyjs()))
    return f"{_ADDRESS.sub(_NOWHERE, script)}\nPlotly.setPlotConfig({json.dumps(CONFIG)});\n"
