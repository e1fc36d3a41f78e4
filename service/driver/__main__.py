"""One attempt of one campaign as a process: `python -m service.driver --data-dir D --campaign C --attempt N`.

The process ends with an `ExitCode`. It stops cleanly on SIGINT (cancel) and SIGTERM (pause), and pauses when its
standard input closes, which is how it notices that its owner is gone. With `--exit-file` it needs no owner: it goes on,
and leaves its exit code in that file. With `--in-cluster-of-cpus` it is a job of a Ray cluster, which it joins; a job
knows one signal only, so it asks the ledger whether it is to pause or to cancel.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from service.campaign.lifecycle import CampaignEvent
from service.campaign.specification import parse, restore
from service.data_directory import DataDirectory, write_whole
from service.driver.cluster import ray_for
from service.driver.exit_codes import ExitCode
from service.driver.stops import StopKind, StopRequests
from service.errors import FencedError, SpecificationError
from service.ledger import Ledger
from service.settings import Settings

if TYPE_CHECKING:
    from service.driver.attempt import Attempt

_log = logging.getLogger("service.driver")


def main() -> int:
    """Run the attempt named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m service.driver", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--campaign", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--exit-file", type=Path)
    parser.add_argument("--in-cluster-of-cpus", type=int)
    arguments = parser.parse_args()
    code = _run(arguments)
    if arguments.exit_file is not None:
        write_whole(arguments.exit_file, str(int(code)))
    return code


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # misses the loggers we turn off
    requests: StopRequests[Attempt] = StopRequests()
    _hear_signals(requests, arguments)
    if arguments.exit_file is None:
        threading.Thread(target=_watch_owner, args=(requests,), name="owner-watch", daemon=True).start()
    with _open_ledger(DataDirectory(arguments.data_dir)) as ledger:
        try:
            return _attempt(ledger, arguments, requests)
        except SpecificationError:
            _log.exception("the specification is refused")
            return ExitCode.SPECIFICATION
        except FencedError:
            _log.exception("another driver has this campaign")
            return ExitCode.FENCED
        except Exception:
            _log.exception("the attempt failed")
            return ExitCode.INFRASTRUCTURE


def _attempt(ledger: Ledger, arguments: argparse.Namespace, requests: StopRequests[Attempt]) -> ExitCode:
    """Take the campaign, start Ray, and run the attempt.

    Ray's processes take seconds to start and want neither torch nor Tune, which another thread loads meanwhile.
    """
    number, campaign_id = arguments.attempt, arguments.campaign
    ledger.claim_attempt(campaign_id, number)
    ledger.move_campaign(campaign_id, CampaignEvent.CLAIM, reason="driver_started", attempt=number)
    document = ledger.campaign(campaign_id).specification
    loading = threading.Thread(target=_load, name="loading", daemon=True)
    loading.start()
    with ExitStack() as stack:
        is_job = arguments.in_cluster_of_cpus is not None
        stack.enter_context(ray_for(restore(document).resources, is_job=is_job))
        _hear_signals(requests, arguments)  # Ray has installed its own handlers
        loading.join()
        from service.driver.attempt import Attempt

        attempt = Attempt(
            ledger,
            parse(document),
            data=DataDirectory(arguments.data_dir),
            campaign_id=campaign_id,
            number=number,
            end_ray=stack.close,
            cluster_cpus=arguments.in_cluster_of_cpus,
        )
        requests.reach(attempt)
        return attempt.run()


def _load() -> None:
    """Load what an attempt needs; of this, starting Ray loads only modules that wait for no other (decision 0307)."""
    importlib.import_module("service.driver.attempt")


def _open_ledger(data: DataDirectory) -> Ledger:
    url = Settings.from_environment().database_url
    return Ledger.at(data.ledger) if url is None else Ledger(url)


def _hear_signals(requests: StopRequests[Attempt], arguments: argparse.Namespace) -> None:
    if arguments.in_cluster_of_cpus is None:
        signal.signal(signal.SIGINT, lambda *_: requests.ask(lambda attempt: attempt.stop(StopKind.CANCEL)))
        signal.signal(signal.SIGTERM, lambda *_: requests.ask(lambda attempt: attempt.stop(StopKind.PAUSE)))
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: requests.ask(_ask_ledger))


def _ask_ledger(attempt: Attempt) -> None:
    threading.Thread(target=attempt.stop_as_asked, daemon=True).start()


def _watch_owner(requests: StopRequests[Attempt]) -> None:
    """Wait until standard input closes: the owner holds its other end as long as it lives."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _log.warning("the owner of this driver is gone; the campaign pauses")
    requests.ask(lambda attempt: attempt.stop(StopKind.PAUSE))


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.exit(code)
