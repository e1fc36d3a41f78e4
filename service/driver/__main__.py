"""One attempt of one campaign as a process: `python -m spectune.service.driver --data-dir D --campaign C --attempt N`.

The process ends with an `ExitCode`. It stops cleanly on SIGINT (cancel) and SIGTERM (pause), and pauses when its
standard input closes, which is how it notices that its owner is gone. With `--exit-file` it needs no owner: it goes on,
and leaves its exit code in that file. With `--in-cluster-of-cpus` it is a job of a Ray cluster, which it joins; a job
knows one signal only, so it asks the ledger whether it is to pause or to cancel. With `--standby` there may be no such
campaign yet: it starts the Ray that the given resources need, and waits for a byte on its standard input first; with
`--portable` its arithmetic will be portable.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectune.service.campaign.model.clean_text import clean_text
from spectune.service.campaign.model.lifecycle import CampaignEvent
from spectune.service.campaign.specification.sections import ResourcesSection
from spectune.service.campaign.specification.specification import parse, restore
from spectune.service.data_directory import DataDirectory
from spectune.service.driver.cluster import ray_for
from spectune.service.driver.environment import portable_environment
from spectune.service.driver.exit_codes import ExitCode
from spectune.service.driver.stop_kinds import StopKind, StopRequests
from spectune.service.errors import ClusterAwayError, FencedError, SpecificationError
from spectune.service.ledger import Ledger
from spectune.service.settings import Settings
from spectune.service.written_files import write_whole

if TYPE_CHECKING:
    from spectune.service.driver.attempt import DriverAttempt

_log = logging.getLogger("spectune.service.driver")


def main() -> int:
    """Run the attempt named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m spectune.service.driver", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--campaign", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--exit-file", type=Path)
    parser.add_argument("--in-cluster-of-cpus", type=int)
    parser.add_argument("--standby", type=ResourcesSection.model_validate_json)
    parser.add_argument("--portable", action="store_true")
    arguments = parser.parse_args()
    os.umask(Settings.from_environment().data_access.mask)  # also for Ray's processes, which are children of this one
    code = _run(arguments)
    if arguments.exit_file is not None:
        write_whole(arguments.exit_file, str(int(code)))
    return code


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # misses the loggers we turn off
    try:
        return _stand_by(arguments) if arguments.standby is not None else _begin(arguments)
    except SpecificationError as error:
        _log.exception("the specification is refused")
        _leave_reason(arguments, "; ".join(str(problem) for problem in error.problems))
        return ExitCode.SPECIFICATION
    except FencedError:
        _log.exception("another driver has this campaign")
        return ExitCode.FENCED
    except ClusterAwayError as error:
        _log.error("%s", error)
        _leave_reason(arguments, str(error))
        return ExitCode.CLUSTER_AWAY
    except Exception as error:
        _log.exception("the attempt failed")
        _leave_reason(arguments, f"{type(error).__name__}: {error}")
        return ExitCode.INFRASTRUCTURE


def _leave_reason(arguments: argparse.Namespace, reason: str) -> None:
    """Leave why the attempt ended where its owner looks; without a disk the log's last line has to do."""
    path = DataDirectory(arguments.data_dir).driver_reason(arguments.campaign, arguments.attempt)
    with suppress(OSError):
        write_whole(path, clean_text(reason, longest=2000))


def _begin(arguments: argparse.Namespace) -> ExitCode:
    """Take the campaign, start Ray, and run the attempt."""
    requests = _hear_stops(arguments)
    if arguments.exit_file is None:
        _watch_owner(requests)
    with _open_ledger(arguments) as ledger:
        _adopt_arithmetic(ledger.campaign(arguments.campaign).specification["arithmetic"] == "portable")
        document = _claim(ledger, arguments)
        with _started_ray(restore(document).resources, arguments, requests) as ray_stack:
            return _attempt(ledger, document, arguments, requests, ray_stack)


def _stand_by(arguments: argparse.Namespace) -> ExitCode:
    """Start Ray, wait until the owner says that the campaign exists, take it, and run the attempt."""
    _adopt_arithmetic(arguments.portable)
    requests = _hear_stops(arguments)
    with _started_ray(arguments.standby, arguments, requests) as ray_stack:
        if not os.read(sys.stdin.fileno(), 1):
            return ExitCode.CANCELLED  # there is no such campaign
        _watch_owner(requests)
        _move_in(arguments)
        with _open_ledger(arguments) as ledger:
            return _attempt(ledger, _claim(ledger, arguments), arguments, requests, ray_stack)


def _adopt_arithmetic(is_portable: bool) -> None:
    """Replace this process if its samplers are to compute portably: NumPy reads its variables when it is imported."""
    wanted = portable_environment() if is_portable else {}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, sys.orig_argv, os.environ | wanted)


def _claim(ledger: Ledger, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Take the campaign and read its specification."""
    ledger.claim_attempt(arguments.campaign, arguments.attempt)
    ledger.move_campaign(arguments.campaign, CampaignEvent.CLAIM, reason="driver_started", attempt=arguments.attempt)
    return ledger.campaign(arguments.campaign).specification


@contextmanager
def _started_ray(
    resources: ResourcesSection, arguments: argparse.Namespace, requests: StopRequests[DriverAttempt]
) -> Iterator[ExitStack]:
    """Start Ray while another thread loads torch and Tune, of which its processes know nothing; closing it ends Ray."""
    loading = threading.Thread(target=_load, name="loading", daemon=True)
    loading.start()
    with ExitStack() as stack:
        stack.enter_context(ray_for(resources, is_job=arguments.in_cluster_of_cpus is not None))
        _hear_signals(requests, arguments)  # Ray has installed its own handlers
        loading.join()
        yield stack


def _attempt(
    ledger: Ledger,
    document: Mapping[str, Any],
    arguments: argparse.Namespace,
    requests: StopRequests[DriverAttempt],
    ray_stack: ExitStack,
) -> ExitCode:
    from spectune.service.driver.attempt import DriverAttempt  # loaded while Ray started

    attempt = DriverAttempt(
        ledger,
        parse(document),
        data=DataDirectory(arguments.data_dir),
        campaign_id=arguments.campaign,
        number=arguments.attempt,
        end_ray=ray_stack.close,
        cluster_cpus=arguments.in_cluster_of_cpus,
        access=Settings.from_environment().data_access,
    )
    requests.reach(attempt)
    return attempt.run()


def _move_in(arguments: argparse.Namespace) -> None:
    """Write to the campaign's log from now on, and work in its folder, as a driver does that starts with a campaign."""
    log = DataDirectory(arguments.data_dir).driver_log(arguments.campaign, arguments.attempt)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.chdir(log.parent)


def _load() -> None:
    """Load what an attempt needs; of this, starting Ray loads only modules that wait for no other (decision 0307)."""
    importlib.import_module("spectune.service.driver.attempt")


def _open_ledger(arguments: argparse.Namespace) -> Ledger:
    url = Settings.from_environment().database_url
    return Ledger.at(DataDirectory(arguments.data_dir).ledger) if url is None else Ledger(url)


def _hear_stops(arguments: argparse.Namespace) -> StopRequests[DriverAttempt]:
    requests: StopRequests[DriverAttempt] = StopRequests()
    _hear_signals(requests, arguments)
    return requests


def _hear_signals(requests: StopRequests[DriverAttempt], arguments: argparse.Namespace) -> None:
    if arguments.in_cluster_of_cpus is None:
        signal.signal(signal.SIGINT, lambda *_: requests.ask(lambda attempt: attempt.stop(StopKind.CANCEL)))
        signal.signal(signal.SIGTERM, lambda *_: requests.ask(lambda attempt: attempt.stop(StopKind.PAUSE)))
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: requests.ask(_ask_ledger))


def _ask_ledger(attempt: DriverAttempt) -> None:
    threading.Thread(target=attempt.stop_as_asked, daemon=True).start()


def _watch_owner(requests: StopRequests[DriverAttempt]) -> None:
    """Pause when standard input closes: the owner holds its other end as long as it lives."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        _log.warning("the owner of this driver is gone; the campaign pauses")
        requests.ask(lambda attempt: attempt.stop(StopKind.PAUSE))

    threading.Thread(target=watch, name="owner-watch", daemon=True).start()


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    gc.freeze()  # on its way out the interpreter would look for garbage in all of torch and Ray: half a second
    sys.exit(code)
