"""One attempt of one campaign as a process: `python -m service.driver --data-dir D --campaign C --attempt N`.

The process ends with an `ExitCode`. It stops cleanly on SIGINT (cancel) and SIGTERM (pause), and pauses when its
standard input closes, which is how it notices that its owner is gone. With `--exit-file` it needs no owner: it goes on,
and leaves its exit code in that file. With `--in-cluster-of-cpus` it is a job of a Ray cluster, which it joins; a job
knows one signal only, so it asks the ledger whether it is to pause or to cancel.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from service.campaign.specification import parse
from service.data_directory import DataDirectory, write_whole
from service.driver.attempt import Attempt
from service.driver.decision import StopKind
from service.driver.exit_codes import ExitCode
from service.errors import FencedError, SpecificationError
from service.ledger import Ledger
from service.settings import Settings

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
    data = DataDirectory(arguments.data_dir)
    with _open_ledger(data) as ledger:
        try:
            attempt = Attempt(
                ledger,
                parse(ledger.campaign(arguments.campaign).specification),
                data=data,
                campaign_id=arguments.campaign,
                number=arguments.attempt,
                install_handlers=_install_handlers if arguments.in_cluster_of_cpus is None else _ask_when_told,
                cluster_cpus=arguments.in_cluster_of_cpus,
            )
            if arguments.exit_file is None:
                threading.Thread(target=_watch_owner, args=(attempt,), name="owner-watch", daemon=True).start()
            return attempt.run()
        except SpecificationError:
            _log.exception("the specification is refused")
            return ExitCode.SPECIFICATION
        except FencedError:
            _log.exception("another driver has this campaign")
            return ExitCode.FENCED
        except Exception:
            _log.exception("the attempt failed")
            return ExitCode.INFRASTRUCTURE


def _open_ledger(data: DataDirectory) -> Ledger:
    url = Settings.from_environment().database_url
    return Ledger.at(data.ledger) if url is None else Ledger(url)


def _install_handlers(attempt: Attempt) -> None:
    signal.signal(signal.SIGINT, lambda *_: attempt.stop(StopKind.CANCEL))
    signal.signal(signal.SIGTERM, lambda *_: attempt.stop(StopKind.PAUSE))


def _ask_when_told(attempt: Attempt) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=attempt.stop_as_asked, daemon=True).start())


def _watch_owner(attempt: Attempt) -> None:
    """Wait until standard input closes: the owner holds its other end as long as it lives."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _log.warning("the owner of this driver is gone; the campaign pauses")
    attempt.stop(StopKind.PAUSE)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.exit(code)
