"""Whether an MLflow server can be used just now and, if not, what its operator has to mend.

The question is put as MLflow's own client puts its requests: with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD
(or MLFLOW_TRACKING_TOKEN), and trusting the certificates of MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE. It
is a real call: /health and /version answer where everything else is refused.
"""

from __future__ import annotations

from http import HTTPStatus

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from spectune.service.tracking.mlflow_tracker import EXPERIMENT

_PATIENCE_SECONDS = 3
_ENDPOINT = "/api/2.0/mlflow/experiments/get-by-name"
_FINE = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)  # no campaign has been projected yet


def problem_with(tracking_uri: str) -> str | None:
    """Return why an MLflow cannot be used; None where it can. Takes three seconds at most.

    Args:
        tracking_uri: Its address; nothing is asked of a store that is a file.
    """
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    try:
        answer = http_request(
            get_default_host_creds(tracking_uri),
            _ENDPOINT,
            "GET",
            params={"experiment_name": EXPERIMENT},
            max_retries=0,
            timeout=_PATIENCE_SECONDS,
            raise_on_status=False,
        )
    except (MlflowException, OSError) as error:
        return _unreachable(tracking_uri, str(error))
    return None if answer.status_code in _FINE else _refused(tracking_uri, answer.status_code, answer.text)


def _unreachable(address: str, error: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in error:
        return (
            "the certificate of MLflow is not trusted; MLFLOW_TRACKING_SERVER_CERT_PATH names the file of an authority "
            f"that is: got {address}"
        )
    if "CA certificate bundle" in error:
        return (
            "the file of certificates does not exist; MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE name it: "
            f"got {error.rpartition(': ')[2]}"
        )
    return f"MLflow does not answer: got {address}"


def _refused(address: str, status: int, text: str) -> str:
    if status == HTTPStatus.UNAUTHORIZED:
        return (
            "MLflow refuses the user or the password; they are taken from MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD: got 401 from {address}"
        )
    if status == HTTPStatus.FORBIDDEN and "host header" in text.lower():
        return f"MLflow is not reached by this name; its --allowed-hosts must list it: got 403 from {address}"
    if status == HTTPStatus.FORBIDDEN:
        return f"MLflow does not let this user read the experiment {EXPERIMENT!r}: got 403 from {address}"
    return f"MLflow cannot be used: got {status} from {address}"
