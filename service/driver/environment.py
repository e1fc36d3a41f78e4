"""Every environment variable that we set for Ray, Tune and the numerical libraries, and why."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass


@dataclass(frozen=True)
class Variable:
    """One variable of the driver's environment, inherited by all its workers."""

    name: str
    value: str
    why: str
    of_workers: bool = False  # in a cluster they do not inherit the driver's


VARIABLES = (
    Variable("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1", "the ledger keeps results; CSV, JSON and TBX logs leak memory"),
    Variable(
        "TUNE_GLOBAL_CHECKPOINT_S", "1000000000", "a new attempt is rebuilt from the ledger, never from snapshots"
    ),
    Variable("TUNE_DISABLE_SIGINT_HANDLER", "1", "our own handler stops the campaign by a command"),
    Variable(
        "TUNE_MAX_PENDING_TRIALS_PG", "1000", "with a searcher of one's own Tune starts slots one by one otherwise"
    ),
    Variable("TUNE_FORCE_TRIAL_CLEANUP_S", "10", "a hung slot must not hold its device for ten minutes"),
    Variable("TUNE_WARN_THRESHOLD_S", "5", "a slot that is opened on a busy machine is not worth a warning"),
    Variable("TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S", "1000000000", "the driver says itself what it waits for"),
    Variable("RAY_CHDIR_TO_TRIAL_DIR", "0", "relative paths in a user's task keep their meaning", True),
    Variable("PL_DISABLE_FORK", "1", "Tune would give it to its workers in a runtime environment", True),
    Variable("RAY_AIR_NEW_OUTPUT", "0", "with verbose=0 this prints nothing"),
    Variable("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0", "Ray's coming behaviour, without its warning"),
    Variable("RAY_idle_worker_killing_time_threshold_ms", "60000", "processes started in advance wait for our slots"),
    Variable(
        "RAY_health_check_period_ms", "3000", "Ray's own value: on one machine, busy as it may be, a node that is"
    ),
    Variable(
        "RAY_health_check_timeout_ms", "10000", "slow to answer is not gone; a cluster of machines gives up sooner,"
    ),
    Variable("RAY_health_check_failure_threshold", "5", "as docker-compose.yml says"),
    Variable("RAY_USAGE_STATS_ENABLED", "0", "nothing is sent anywhere"),
    Variable("RAY_AUTH_MODE", "token", "Ray runs code for whoever reaches its ports"),
    Variable("RAY_DEDUP_LOGS", "0", "each line of a worker's log counts"),
    Variable(
        "MALLOC_MMAP_THRESHOLD_",
        str(32 * 2**20),
        "glibc gives a step's tensors back to the kernel otherwise, and",
        of_workers=True,
    ),
    Variable(
        "MALLOC_TRIM_THRESHOLD_",
        str(256 * 2**20),
        "the next step waits for zeroed pages: a quarter of its time",
        of_workers=True,
    ),
    Variable("PYTHONUNBUFFERED", "1", "the log shows what happened before a crash", True),
)


_PORTABLE = (
    Variable("ATEN_CPU_CAPABILITY", "avx2", "torch's own kernels, as of every x86-64 processor with AVX2"),
    Variable("MKL_CBWR", "AVX2,STRICT", "torch's products, and MKL's vector functions"),
    Variable("ONEDNN_MAX_CPU_ISA", "AVX2", "torch's products in bfloat16, and convolutions"),
    Variable("OPENBLAS_CORETYPE", "Haswell", "the products of NumPy and SciPy, of which samplers are made"),
    Variable(
        "NPY_DISABLE_CPU_FEATURES",
        "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
        "NumPy's exponentials and logarithms, by the names of its old and of its new releases",
    ),
)
"""What makes the samplers of a driver, and what it starts, compute alike on every such processor (0207)."""

_STOPPING = (
    Variable("RAY_JOB_STOP_SIGNAL", "SIGINT", "the driver then asks the ledger whether to pause or to cancel"),
    Variable("RAY_JOB_STOP_WAIT_TIME_S", "30", "it writes checkpoints before it ends; three seconds would not do"),
)
_NODES_OWN = ("RAY_AUTH_MODE",)


def job_environment() -> dict[str, str]:
    """Make the variables of a driver that runs as a job of a cluster; the token is the nodes' own."""
    return {each.name: each.value for each in (*VARIABLES, *_STOPPING) if each.name not in _NODES_OWN}


def driver_environment() -> dict[str, str]:
    """Make the variables of one driver: of a Ray of its own, or of the cluster in RAY_ADDRESS, which has its token."""
    if not os.environ.get("RAY_ADDRESS"):
        return own_ray_environment()
    return {variable.name: variable.value for variable in VARIABLES if variable.name not in _NODES_OWN}


def own_ray_environment() -> dict[str, str]:
    """Make the variables of whoever starts a Ray; its token is new each time and never written to a file here."""
    return {variable.name: variable.value for variable in VARIABLES} | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def portable_environment() -> dict[str, str]:
    """Return the variables of a process whose numbers are to be the same on every x86-64 processor with AVX2.

    NumPy and SciPy read theirs when they are imported, so that they must be set before the process starts.
    """
    return {variable.name: variable.value for variable in _PORTABLE}


def worker_environment() -> dict[str, str]:
    """Make the variables that a worker on another machine needs."""
    return {variable.name: variable.value for variable in VARIABLES if variable.of_workers}
