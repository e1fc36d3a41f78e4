"""Addresses of MLflow's pages, and the command that serves them from an embedded store.

    run        {address}/#/experiments/{experiment}/runs/{run}?workflowType=machine_learning
    trials     {address}/#/experiments/{experiment}/runs?viewStateShareKey=...&compareRunsMode=CHART&...
    compare    {address}/#/compare-runs?runs=["...", ...]&experiments=["..."]&...

Without its `workflowType` a page is the one for language model applications, which names runs evaluations. MLflow
documents none of this; tests/integration/test_mlflow_pages.py opens each page in a browser.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from spectune.service.data_directory import DataDirectory

MLFLOW = "mlflow"  # the tracker's name, under which the ledger keeps its cursor
ATTACHMENTS = "mlflow-attachments"  # and that of the documents beside a campaign's run
EMBEDDED_ADDRESS = "http://127.0.0.1:5000"
_TRAINING = {"workflowType": "machine_learning"}
MOST_COMPARED = 20  # more make a page that nobody reads, and an address that is cut off


def ui_command(data: DataDirectory, *, mlflow: str) -> str:
    """Return the command that serves an embedded store.

    Args:
        data: Where the store is.
        mlflow: The path of MLflow's command.
    """
    command = f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {shlex.quote(mlflow)} ui"  # no processes for MLflow's own jobs
    return f"{command} --backend-store-uri {shlex.quote(data.mlflow_uri)} --host 127.0.0.1 --port 5000"


def run_page(experiment_id: str, run_id: str, *, address: str) -> str:
    """Return the page of one run: parameters, metrics, tags and artifacts.

    Args:
        experiment_id: MLflow's experiment.
        run_id: A campaign's run, or a trial's.
        address: Where MLflow is served.
    """
    return f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?{urlencode(_TRAINING)}"


def trials_page(experiment_id: str, parent_run_id: str, *, metric: str, ascending: bool, address: str) -> str:
    """Return the page that shows a campaign's trials and their charts, the best first, where MLflow keeps no view.

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
        **_TRAINING,
    }
    return f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def view_page(experiment_id: str, key: str, *, address: str) -> str:
    """Return the page that shows a campaign's trials as a view that MLflow keeps (`views.py`).

    Args:
        experiment_id: MLflow's experiment.
        key: The view's.
        address: Where MLflow is served.
    """
    query = {"viewStateShareKey": key, "compareRunsMode": "CHART", **_TRAINING}
    return f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def compare_page(experiment_id: str, run_ids: Sequence[str], *, address: str) -> str:
    """Return the page that compares runs: parallel coordinates, scatter plots, and what differs.

    Args:
        experiment_id: MLflow's experiment.
        run_ids: Two to `MOST_COMPARED` runs.
        address: Where MLflow is served.
    """
    assert 2 <= len(run_ids) <= MOST_COMPARED, f"2 to {MOST_COMPARED} runs are compared: got {len(run_ids)}"
    query = {"runs": json.dumps(list(run_ids)), "experiments": json.dumps([experiment_id]), **_TRAINING}
    return f"{address.rstrip('/')}/#/compare-runs?{urlencode(query, quote_via=quote)}"
