"""Addresses of MLflow's pages, and the command that serves them from an embedded store."""

from __future__ import annotations

import shlex
from urllib.parse import quote, urlencode

from service.data_directory import DataDirectory

MLFLOW = "mlflow"  # the tracker's name, under which the ledger keeps its cursor
EMBEDDED_ADDRESS = "http://127.0.0.1:5000"


def ui_command(data: DataDirectory, *, mlflow: str) -> str:
    """Give the command that serves an embedded store.

    Args:
        data: Where the store is.
        mlflow: The path of MLflow's command.
    """
    return f"{shlex.quote(mlflow)} ui --backend-store-uri {shlex.quote(data.mlflow_uri)} --host 127.0.0.1 --port 5000"


def trials_page(experiment_id: str, parent_run_id: str, *, metric: str, ascending: bool, address: str) -> str:
    """Give the page that shows a campaign's trials and their charts, the best first.

    Without an order by a metric MLflow folds the trials under their parent run and draws no curves.

    Args:
        experiment_id: MLflow's experiment.
        parent_run_id: The campaign's run.
        metric: What to order by.
        ascending: Whether small values come first.
        address: Where MLflow is served.
    """
    query = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": "true" if ascending else "false",
        "compareRunsMode": "CHART",
    }
    return f"{address}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"
