"""How fast the service answers: `python -m benchmarks.service [--campaigns 1000] [--trials 10000] [--clients 64]`.

A ledger with many campaigns, one of them with many trials, is served by a real uvicorn in a process of its own. Clients
ask for every verb at the same time, verbs interleaved, and the table gives p50, p95 and p99 of each in milliseconds.
The same is measured once more while a driver writes a thousand reports a second to the campaign that is asked about.
Submissions are measured apart, at a steady 50 a second, for so they come; no campaign runs meanwhile. Then many
clients follow one campaign while it is written to, and the time from the commit to the last one's receipt is measured.

Goals (2 cores): list and leaderboard p95 < 200 ms with 10 000 trials, also while they report; submit p95 < 100 ms at
50 requests/s.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.kept import keep
from spectune.service.api.examples import SPECIFICATION as EXAMPLE
from spectune.service.campaign.model.lifecycle import CampaignEvent, TrialState
from spectune.service.campaign.specification.specification import parse
from spectune.service.data_directory import DataDirectory
from spectune.service.ledger import ServiceLedger, entries
from spectune.service.ledger.submissions import LEADER

RATE = 50.0  # submissions a second
REPORTS = 1000  # a second
BATCH_SECONDS = 0.25  # as a driver's writer does
PORT = 8799


def fill(ledger: ServiceLedger, *, num_campaigns: int, num_trials: int) -> str:
    """Make ended campaigns, one of them with many trials, and give the id of that one."""
    document = parse(EXAMPLE | {"search": {"points": num_trials // 2}}).document()
    small = parse(EXAMPLE).document()
    for number in range(num_campaigns):
        ledger.submit(f"c{number}", name=f"campaign {number}", specification=small, owner="local")
        ledger.move_campaign(f"c{number}", CampaignEvent.FAIL, reason="benchmark")
    ledger.submit("large", name="large", specification=document, owner="local")
    attempt = ledger.begin_attempt("large")
    position = 1
    for start in range(0, num_trials, 500):
        records = completed(range(start, min(start + 500, num_trials)), steps=[60])
        ledger.append("large", attempt, list(enumerate(records, start=position)))
        position += len(records)
    ledger.move_campaign("large", CampaignEvent.PAUSE, reason="benchmark")
    return "large"


def completed(numbers: range, *, steps: Sequence[int]) -> list[dict[str, Any]]:
    """Return what a driver writes of trials from their beginning to their end."""
    chance = random.Random(numbers.start)
    records: list[dict[str, Any]] = []
    for number in numbers:
        place: dict[str, Any] = {"arm": number % 2, "point": number // 2, "seed_index": 0, "ask": {}, "at": 1}
        config = {"lr": chance.random(), "momentum": 0.9, "weight_decay": 0.1}
        records.append(entries.trial_created(trial=number, config=config, **place))
        for step in steps:
            value = chance.random()
            report: dict[str, Any] = {"metrics": {"validation_loss": value}, "device_seconds": 0.1, "produced_at": 1}
            records.append(entries.observation(trial=number, step=step, objective=value, **report))
        records.append(entries.trial_moved(trial=number, state=TrialState.COMPLETED, reason="end_of_schedule", at=2))
    return records


def write_reports(path: Path, campaign_id: str, seconds: float) -> None:
    """Be a driver whose trials report, come to be and end, a batch at a time; say how many reports it brought in."""
    steps = [10, 20, 40, 50, 60]
    per_batch = int(REPORTS * BATCH_SECONDS / len(steps))
    with ServiceLedger.at(path) as ledger:
        attempt = ledger.campaign(campaign_id).attempt
        position = ledger.spool_position(campaign_id, attempt) + 1
        number = first = 1 + max(each.number for each in ledger.outcomes(campaign_id))
        began = time.monotonic()
        for batch in range(int(seconds / BATCH_SECONDS)):
            time.sleep(max(0.0, began + batch * BATCH_SECONDS - time.monotonic()))
            records = completed(range(number, number + per_batch), steps=steps)
            ledger.append(campaign_id, attempt, list(enumerate(records, start=position)))
            position, number = position + len(records), number + per_batch
        rate = (number - first) * len(steps) / (time.monotonic() - began)
        print(f"{rate:.0f} reports a second were written meanwhile")


@contextmanager
def reporting(path: Path, campaign_id: str, seconds: float) -> Iterator[None]:
    """Let a driver write meanwhile, in a process of its own."""
    writer = multiprocessing.get_context("spawn").Process(target=write_reports, args=(path, campaign_id, seconds))
    writer.start()
    try:
        yield
    finally:
        writer.join()


def verbs(large: str) -> dict[str, tuple[str, str]]:
    """Name the verbs that are measured under load."""
    path = f"/v1/campaigns/{large}"
    return {
        "list campaigns": ("GET", "/v1/campaigns?limit=50"),
        "read campaign": ("GET", path),
        "leaderboard": ("GET", path + "/leaderboard"),
        "best": ("GET", path + "/best"),
        "trials by number": ("GET", path + "/trials?limit=100"),
        "trials by objective": ("GET", path + "/trials?limit=100&order_by=objective"),
        "curve of a trial": ("GET", path + "/trials/17/metrics"),
        "preview": ("POST", "/v1/campaigns:preview"),
        "readyz": ("GET", "/readyz"),
    }


async def load(
    url: str, what: dict[str, tuple[str, str]], *, num_clients: int, seconds: float
) -> dict[str, list[float]]:
    """Ask for everything from many clients at once; give the milliseconds of each answer by verb."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    deadline = time.monotonic() + seconds

    async def ask(number: int) -> None:
        chance = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
            while time.monotonic() < deadline:
                name = chance.choice(list(what))
                method, path = what[name]
                start = time.perf_counter()
                answer = await client.request(method, path, json=EXAMPLE if method == "POST" else None)
                times[name].append(1000 * (time.perf_counter() - start))
                assert answer.status_code == 200, (name, answer.status_code, answer.text[:200])

    await asyncio.gather(*(ask(number) for number in range(num_clients)))
    return times


async def submit_steadily(url: str, *, seconds: float) -> list[float]:
    """Submit at a steady rate, whether or not earlier ones were answered."""
    times: list[float] = []

    async def submit(client: httpx.AsyncClient) -> None:
        start = time.perf_counter()
        answer = await client.post("/v1/campaigns", json=EXAMPLE)
        times.append(1000 * (time.perf_counter() - start))
        assert answer.status_code == 201, answer.text[:200]

    limits = httpx.Limits(max_connections=64)
    async with (
        httpx.AsyncClient(base_url=url, timeout=60.0, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        start = time.monotonic()
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, start + number / RATE - time.monotonic()))
            group.create_task(submit(client))
    return times


async def fan_out(url: str, ledger: ServiceLedger, campaign_id: str, *, num_clients: int) -> list[float]:
    """Let many follow a campaign, write ten events, and give the milliseconds from each commit to the last receipt."""
    after = ledger.campaign(campaign_id).sequence
    seen: defaultdict[int, list[float]] = defaultdict(list)

    async def follow() -> None:
        path = f"/v1/campaigns/{campaign_id}/events?after={after}"
        async with httpx.AsyncClient(base_url=url, timeout=60.0) as client, client.stream("GET", path) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    sequence = int(line.removeprefix("id: "))
                    seen[sequence].append(time.monotonic())
                    if sequence == after + 10:
                        return

    tasks = [asyncio.create_task(follow()) for _ in range(num_clients)]
    await asyncio.sleep(5.0)
    committed = {}
    for number in range(10):
        await asyncio.to_thread(ledger.change, campaign_id, version=None, priority=number)
        committed[after + number + 1] = time.monotonic()
        await asyncio.sleep(0.7)
    await asyncio.gather(*tasks)
    assert all(len(seen[sequence]) == num_clients for sequence in committed), "each client sees each event once"
    return [1000 * (max(seen[sequence]) - at) for sequence, at in committed.items()]


def summary(times: list[float]) -> dict[str, float]:
    """Return count, p50, p95 and p99."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"n": len(times), "p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98]}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--followers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = DataDirectory(Path(folder))
        ledger = ServiceLedger.at(data.ledger)
        large = fill(ledger, num_campaigns=arguments.campaigns, num_trials=arguments.trials)
        ledger.take_lease(LEADER, holder="benchmark", seconds=3600.0)  # no campaign may run beside the measurement
        with Served(data) as served:
            few = asyncio.run(load(served.url, verbs(large), num_clients=4, seconds=arguments.seconds))
            many = asyncio.run(load(served.url, verbs(large), num_clients=arguments.clients, seconds=arguments.seconds))
            with reporting(data.ledger, large, arguments.seconds + 3.0):
                busy = asyncio.run(load(served.url, verbs(large), num_clients=4, seconds=arguments.seconds))
            submitted = asyncio.run(submit_steadily(served.url, seconds=arguments.seconds))
            spread = asyncio.run(fan_out(served.url, ledger, large, num_clients=arguments.followers))
        ledger.close()
    rows = {f"{name}, 4 clients": summary(times) for name, times in sorted(few.items())}
    rows |= {f"{name}, 4 clients, reports arrive": summary(times) for name, times in sorted(busy.items())}
    rows |= {f"{name}, {arguments.clients} clients": summary(times) for name, times in sorted(many.items())}
    rows[f"submit, {RATE:g}/s"] = summary(submitted)
    rows[f"event to the last of {arguments.followers} followers"] = summary(spread)
    show(rows)
    if arguments.output:
        settings = {name: value for name, value in vars(arguments).items() if name != "output"}
        keep(arguments.output, {"settings": settings, "rows": rows})


class Served:
    """A service in a process of its own that runs no campaign."""

    def __init__(self, data: DataDirectory) -> None:
        spectune = str(Path(sys.executable).parent / "spectune")
        command = [spectune, "serve", "--data-dir", str(data.root), "--port", str(PORT), "--no-tracking", "--no-ray"]
        self._log = data.root / "serve.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self.url = f"http://127.0.0.1:{PORT}"

    def __enter__(self) -> Served:
        wait(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def wait(condition: Callable[[], bool]) -> None:
    """Wait until a service answers."""
    for _ in range(300):
        with suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.1)
    raise RuntimeError("the service does not answer")


def show(rows: dict[str, dict[str, float]]) -> None:
    """Print a table."""
    print(f"{'':44} {'n':>7} {'p50':>8} {'p95':>8} {'p99':>8}  ms")
    for name, row in rows.items():
        print(f"{name:44} {row['n']:7.0f} {row['p50_ms']:8.1f} {row['p95_ms']:8.1f} {row['p99_ms']:8.1f}")


if __name__ == "__main__":
    main()
