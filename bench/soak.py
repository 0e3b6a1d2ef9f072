"""The studio server under a mixed load for half an hour: `python -m bench.soak --minutes 30`.

A real server with its worker, 20 clients that read, page, poll, follow streams, send nonsense, make and delete things, put runs into the
queue and cancel them. At the end: no answer of 500 or above, no growth of the server's memory, no job that is neither waiting nor over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.serving import Client, Server, serving

RECIPE = {"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie", "optim": {"max_steps": 4}, "evaluation": {"suites": []}}
NUM_CLIENTS = 20
MAX_GROWTH = 0.15
SETTLE_SECONDS = 120.0
OVER = ("succeeded", "failed", "cancelled")


@dataclass
class Soak:
    """What happened."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="danlu-soak-") as folder, serving(Path(folder)) as server:
        soak = Soak()
        stuck = asyncio.run(work(server, soak, minutes * 60))
    return told(soak, stuck, minutes)


async def work(server: Server, soak: Soak, seconds: float) -> list[str]:
    """Load the server; return the jobs that have not ended afterwards."""
    end = time.monotonic() + seconds
    client = Client(server)
    project = json.loads((await client.ask("POST", "/projects", b'{"name": "soak"}')).body)["id"]
    async with asyncio.TaskGroup() as group:
        group.create_task(measure(server, soak, end))
        group.create_task(submit(server, soak, project, end))
        for number in range(NUM_CLIENTS):
            group.create_task(roam(server, soak, project, random.Random(number), end))
    await client.close()
    return await settle(Client(server))


async def measure(server: Server, soak: Soak, end: float) -> None:
    """Note the server's memory every second."""
    while time.monotonic() < end:
        soak.rss.append(server.rss_bytes)
        await asyncio.sleep(1)


async def submit(server: Server, soak: Soak, project: str, end: float) -> None:
    """Keep a few runs in the queue, and cancel every other one."""
    client, number = Client(server), 0
    while time.monotonic() < end:
        waiting = json.loads((await ask(client, soak, "GET", "/jobs")).body)
        if len(waiting) < 4:
            body = json.dumps({"recipe": RECIPE, "priority": ("express", "standard", "saver")[number % 3]}).encode()
            await ask(client, soak, "POST", f"/projects/{project}/runs", body, Idempotency_Key=f"soak-{number}")
            number += 1
        elif number % 2:
            await ask(client, soak, "POST", f"/jobs/{waiting[-1]['id']}/cancel", b"")
            number += 1
        await asyncio.sleep(2)
    await client.close()


async def roam(server: Server, soak: Soak, project: str, random_: random.Random, end: float) -> None:
    """Ask one thing after the other."""
    client, tag = Client(server), ""
    while time.monotonic() < end:
        choice = random_.random()
        try:
            if choice < 0.5:
                answer = await ask(client, soak, "GET", f"/projects/{project}/runs?limit={random_.randint(1, 50)}", If_None_Match=tag or '"0"')
                tag = answer.headers.get("etag", "")
            elif choice < 0.7:
                await ask(client, soak, "GET", random_.choice(["/projects", "/jobs", "/system", "/alarms", "/nothing", f"/projects/{project}/members"]))
            elif choice < 0.8:
                made = await ask(client, soak, "POST", "/projects", b'{"name": "short-lived"}')
                await ask(client, soak, "DELETE", f"/projects/{json.loads(made.body)['id']}")
            elif choice < 0.9:
                await ask(client, soak, "POST", "/projects", random_.choice([b"{", b"[]", b'{"name": 1}', b"\xff", b'{"name": "' + b"x" * 10_000 + b'"}']))
            else:
                await follow(server, soak, client, project, random_)
        except (OSError, asyncio.IncompleteReadError) as error:
            soak.broken[type(error).__name__] += 1
            client = Client(server)
        await asyncio.sleep(random_.random() * 0.4)
    await client.close()


async def follow(server: Server, soak: Soak, client: Client, project: str, random_: random.Random) -> None:
    """Open the stream of a run, read a little, and go away without a word."""
    runs = json.loads((await ask(client, soak, "GET", f"/projects/{project}/runs?limit=5")).body)["items"]
    if not runs:
        return
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"GET /api/v1/runs/{random_.choice(runs)['id']}/events/stream HTTP/1.1\r\nHost: {server.host}:{server.port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    soak.statuses[int(head.split()[1])] += 1
    await asyncio.sleep(random_.random())
    writer.close()


async def ask(client: Client, soak: Soak, method: str, path: str, body: bytes = b"", **headers: str):  # type: ignore[no-untyped-def]
    """Ask, and note the answer."""
    answer = await client.ask(method, path, body, **headers)
    soak.statuses[answer.status] += 1
    soak.seconds.append(answer.seconds)
    return answer


async def settle(client: Client) -> list[str]:
    """Cancel what has not ended; return the jobs that do not end all the same."""
    end = time.monotonic() + SETTLE_SECONDS
    left: list[dict[str, str]] = []
    while time.monotonic() < end:
        left = json.loads((await client.get("/jobs")).body)
        if not left:
            break
        for job in left:
            if job["state"] not in (*OVER, "cancelling"):
                await client.ask("POST", f"/jobs/{job['id']}/cancel")
        await asyncio.sleep(1)
    return [f"{job['id']} {job['state']}" for job in left]


def told(soak: Soak, stuck: list[str], minutes: float) -> int:
    """Print what happened; 1 when it is not as it should be."""
    failed = sum(count for status, count in soak.statuses.items() if status >= 500)
    quarter = max(1, len(soak.rss) // 4)
    first, last = median(soak.rss[quarter : 2 * quarter] or soak.rss), median(soak.rss[-quarter:])
    print(f"{minutes:g} minutes, {sum(soak.statuses.values()):,} answers: {dict(sorted(soak.statuses.items()))}; connections broken: {dict(soak.broken)}")
    print(f"median {median(soak.seconds) * 1e3:.1f} ms, 95 % {sorted(soak.seconds)[int(len(soak.seconds) * 0.95)] * 1e3:.1f} ms")
    tenths = [median(soak.rss[number * len(soak.rss) // 10 : (number + 1) * len(soak.rss) // 10] or soak.rss) / 1e6 for number in range(10)]
    print(f"memory of the server by tenths of the time, MB: {', '.join(f'{size:.0f}' for size in tenths)}; stuck jobs: {stuck or 'none'}")
    is_well = not failed and not soak.broken and not stuck and last < first * (1 + MAX_GROWTH)
    print("well" if is_well else "NOT well")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
