"""How fast the studio server answers with 10,000 runs and a million measured points in its database: `python -m bench.platform`.

Fills a home in build/bench/platform once, starts the real server on it, asks each kind of reading question one after the other, then
lets 200 clients poll at the same time. `--write` puts the table into docs/platform.md.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median

from bench.serving import Client, Server, percentile, serving
from danlu.services.platform.platform import Platform
from danlu.settings import Settings
from danlu.store.ids import ALPHABET

HOME = Path("build/bench/platform").absolute()
PAGE = Path("docs/platform.md")
BEGIN, END = "<!-- bench.platform -->", "<!-- /bench.platform -->"
NUM_RUNS, NUM_POINTS, NUM_PROJECTS = 10_000, 1_000_000, 20
STATES = ("succeeded",) * 8 + ("failed", "cancelled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="requests per question")
    parser.add_argument("--clients", type=int, default=200, help="clients that poll at the same time")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long they poll, once a second each")
    parser.add_argument("--write", action="store_true", help="put the table into docs/platform.md")
    arguments = parser.parse_args()
    ids = fill()
    load = os.getloadavg()[0]
    with serving(HOME, "--no-worker") as server:
        idle = server.rss_bytes
        rows = asyncio.run(questions(server, ids, arguments.requests))
        polled = asyncio.run(polling(server, ids["runs"], arguments.clients, arguments.seconds))
        lines = table(server, idle, rows, polled, load)
    print("\n".join(lines))
    if arguments.write:
        text = PAGE.read_text("utf-8")
        before, _, rest = text.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}", "utf-8")


def made_id(prefix: str, at: float, random_: random.Random) -> str:
    """An id as danlu.store.ids makes it, for a time."""
    number = int(at * 1000) << 80 | random_.getrandbits(80)
    return f"{prefix}_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def fill() -> dict[str, list[str]]:
    """Make the home, or take the one that was made before; return the ids to ask for."""
    marker = HOME / "filled.json"
    if marker.exists():
        return dict(json.loads(marker.read_text()))
    HOME.mkdir(parents=True, exist_ok=True)
    Platform.open(Settings(home=HOME)).close()
    random_, now = random.Random(0), time.time()
    projects = [made_id("prj", now - 1e7, random_) for _ in range(NUM_PROJECTS)]
    runs = [(made_id("run", now - 1e6 + number * 60, random_), projects[0] if number % 2 else projects[number % NUM_PROJECTS]) for number in range(NUM_RUNS)]
    recipe = json.dumps({"base_model": "danlu/tiny", "dataset": "danlu/zhangjiajie", "optim": {"learning_rate": 1e-4}, "method": {"type": "lora", "rank": 16}})
    jobs = [made_id("job", now - 1e6 + number * 60, random_) for number in range(NUM_RUNS)]
    with closing(sqlite3.connect(HOME / "danlu.sqlite")) as connection, connection:
        connection.execute("PRAGMA synchronous=OFF")
        insert(connection, "projects", [dict(id=id, name=f"project {id}", description="", is_archived=0, **times(now)) for id in projects])
        insert(connection, "runs", [run_row(id, project, recipe, now, random_) for id, project in runs])
        insert(connection, "jobs", [job_row(job, number, *runs[number], now) for number, job in enumerate(jobs)])
        per_run = NUM_POINTS // (NUM_RUNS // 10)
        for id, _ in runs[::10]:
            values = [(id, step, "train", json.dumps({"loss": 3 / (step + 1), "learning_rate": 1e-4, "tokens": step * 512})) for step in range(per_run)]
            connection.executemany('INSERT INTO run_points (run_id, step, kind, "values") VALUES (?, ?, ?, ?)', values)
    with closing(sqlite3.connect(HOME / "danlu.sqlite")) as connection:
        connection.execute("ANALYZE")
        connection.commit()
    ids = {"projects": projects, "runs": [id for id, _ in runs[::10]], "jobs": jobs[::10]}
    marker.write_text(json.dumps(ids))
    return ids


def insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, object]]) -> None:
    """Add rows that all have the same columns."""
    names = list(rows[0])
    marks = ", ".join("?" for _ in names)
    connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", [tuple(row.values()) for row in rows])


def times(now: float) -> dict[str, float]:
    """What every row of a noun has."""
    return {"created_at": now, "updated_at": now, "version": 3}


def run_row(id: str, project: str, recipe: str, now: float, random_: random.Random) -> dict[str, object]:
    """A run that is over."""
    summary = json.dumps({"loss": random_.random(), "delta": -random_.random()})
    facts = {"state": random_.choice(STATES), "recipe": recipe, "resolved": recipe, "fingerprint": id, "base_model": "danlu/tiny", "verdict": "improved"}
    return {"id": id, "project_id": project, "name": f"run {id[-6:]}", **facts, "summary": summary, "started_at": now, "finished_at": now, **times(now)}


def job_row(id: str, number: int, run: str, project: str, now: float) -> dict[str, object]:
    """A job that is over, but for a hundred that wait."""
    state = "queued" if number >= NUM_RUNS - 100 else "succeeded"
    facts = {"kind": "train", "payload": '{"type": "train"}', "state": state, "priority": "standard", "position": number, "num_slots": 1, "attempt": 1}
    more = {"progress": 0, "progress_at_start": 0, "attempts_without_progress": 0, "is_paused_by_user": 0}
    return {"id": id, "project_id": project, "run_id": run, **facts, **more, **times(now)}


async def questions(server: Server, ids: dict[str, list[str]], count: int) -> list[tuple[str, float, float, float, int]]:
    """Ask each question `count` times; return (question, processor time, median, p95, bytes)."""
    random_ = random.Random(1)
    project, runs, jobs = ids["projects"][0], ids["runs"], ids["jobs"]
    asked = {
        "projects": lambda: "/projects",
        "runs of a project, newest 50": lambda: f"/projects/{project}/runs",
        "runs of a project, 200 from the middle": lambda: f"/projects/{project}/runs?limit=200&after={random_.choice(runs)}",
        "runs of a project, failed ones": lambda: f"/projects/{project}/runs?state=failed",
        "a run": lambda: f"/runs/{random_.choice(runs)}",
        "jobs of a run": lambda: f"/runs/{random_.choice(runs)}/jobs",
        "jobs of a project": lambda: f"/projects/{project}/jobs",
        "a job": lambda: f"/jobs/{random_.choice(jobs)}",
        "points of a run, 500 of 1,000": lambda: f"/runs/{random_.choice(runs)}/points",
        "curves of a run (1,000 points)": lambda: f"/runs/{random_.choice(runs)}/curves",
        "the queue (100 jobs wait)": lambda: "/jobs",
        "the installation": lambda: "/system",
    }
    client, rows = Client(server), []
    for name, path in asked.items():
        answers, used = [], server.cpu_seconds
        for number in range(count + 5):
            answer = await client.get(path())
            assert answer.status == 200, (name, answer)
            if number >= 5:  # the first ones open connections and fill caches
                answers.append(answer)
        seconds = [answer.seconds for answer in answers]
        rows.append((name, (server.cpu_seconds - used) / (count + 5), median(seconds), percentile(seconds, 0.95), len(answers[-1].body)))
    await client.close()
    return rows


async def polling(server: Server, runs: list[str], num_clients: int, seconds: float) -> tuple[int, int, list[float]]:
    """Let clients poll a run each, once a second, with its ETag; return requests, errors, and times."""
    end = time.perf_counter() + seconds
    took: list[float] = []
    num_errors = 0

    async def poll(number: int) -> None:
        nonlocal num_errors
        client, tag = Client(server), ""
        await asyncio.sleep(number / num_clients)
        while time.perf_counter() < end:
            answer = await client.get(f"/runs/{runs[number % len(runs)]}", **({"If_None_Match": tag} if tag else {}))
            num_errors += answer.status not in (200, 304)
            tag = answer.headers.get("etag", "")
            took.append(answer.seconds)
            await asyncio.sleep(max(0.0, 1.0 - answer.seconds))
        await client.close()

    found = await asyncio.gather(*(poll(number) for number in range(num_clients)), return_exceptions=True)
    num_errors += sum(isinstance(one, BaseException) for one in found)
    return len(took), num_errors, took


def table(server: Server, idle: int, rows: list[tuple[str, float, float, float, int]], polled: tuple[int, int, list[float]], load: float) -> list[str]:
    """The page's part."""
    count, errors, took = polled
    how = "two processor threads shared by server and clients, SQLite"
    lines = [f"Measured on {datetime.date.today()} with `python -m bench.platform`: {how}, {NUM_RUNS:,} runs,"]
    lines += [
        f"{NUM_POINTS:,} points. Ready {server.start_seconds:.1f} s after the start, {idle / 1e6:.0f} MB idle, {server.rss_bytes / 1e6:.0f} MB afterwards.",
        f"Programs that wanted a processor before it began: {load:.1f} on average (0 on an idle machine).",
        "",
    ]
    lines += ["| question | processor time, ms | median, ms | 95 %, ms | answer, kB |", "|---|--:|--:|--:|--:|"]
    lines += [f"| {name} | {cpu * 1e3:.1f} | {middle * 1e3:.1f} | {most * 1e3:.1f} | {size / 1e3:.1f} |" for name, cpu, middle, most, size in rows]
    spread = f"median {median(took) * 1e3:.1f} ms, 95 % {percentile(took, 0.95) * 1e3:.1f} ms"
    return [*lines, "", f"200 clients polling a run each once a second: {count:,} requests, {errors} errors, {spread}."]


if __name__ == "__main__":
    main()
