"""Which engine to hand shards to? Start, memory and cost a task of Dask, and of Ray where it is installed.

    python benchmarks/engines.py --json engines.json

A shard takes minutes, so that a task's milliseconds do not count; what a user feels is what has to be
installed, how long two idle workers take to be there and what memory they hold.
"""

import importlib.metadata
import time

import psutil
from report import machine, options, write


def memory() -> float:
    """Megabytes of all processes below this one, shared pages once."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 1e6


def installed(*packages: str) -> float:
    """Megabytes of the files of some packages."""
    return (
        sum(
            file.locate().stat().st_size
            for package in packages
            for file in importlib.metadata.files(package) or []
            if file.locate().is_file()
        )
        / 1e6
    )


def identity(i: int) -> int:
    return i


def with_dask(tasks: int) -> dict[str, float]:
    from dask.distributed import Client, LocalCluster

    start = time.perf_counter()
    with LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        client.submit(identity, 0).result()
        ready = time.perf_counter() - start
        held = memory()
        start = time.perf_counter()
        client.gather(client.map(identity, range(tasks), pure=False))
        each = (time.perf_counter() - start) / tasks
    needs = (
        "dask",
        "distributed",
        "tblib",
        "zict",
        "msgpack",
        "sortedcontainers",
        "locket",
        "partd",
        "toolz",
    )
    return {"ready": ready, "memory": held, "task": 1e3 * each, "installed": installed(*needs)}


def with_ray(tasks: int) -> dict[str, float]:
    import ray

    start = time.perf_counter()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(identity)
    ray.get(task.remote(0))
    ready = time.perf_counter() - start
    ray.get([task.remote(i) for i in range(2)])
    held = memory()
    start = time.perf_counter()
    ray.get([task.remote(i) for i in range(tasks)])
    each = (time.perf_counter() - start) / tasks
    ray.shutdown()
    return {"ready": ready, "memory": held, "task": 1e3 * each, "installed": installed("ray")}


UNITS = {"ready": "s", "memory": "MB", "task": "ms", "installed": "MB"}
WHAT = {
    "ready": "two workers ready",
    "memory": "memory when idle",
    "task": "a task that does nothing",
    "installed": "installed files",
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    given = parser.parse_args()
    began, figures, found = machine(), [], {}
    for name, run in (("dask", with_dask), ("ray", with_ray)):
        try:
            found[name] = run(given.tasks)
        except ImportError:
            print(f"{name} is not installed")
            continue
        version = importlib.metadata.version(name)
        for key, value in found[name].items():
            print(f"{name} {version}, {WHAT[key]}: {value:.3g} {UNITS[key]}")
            figures.append(
                {"what": WHAT[key], "engine": f"{name} {version}", "value": value, "unit": UNITS[key]}
            )
    ratios = {}
    if len(found) == 2:
        ratios = {f"ray to dask, {WHAT[key]}": found["ray"][key] / found["dask"][key] for key in UNITS}
        for what, ratio in ratios.items():
            print(f"ratio, {what}: {ratio:.1f}")
    write(given, "starting two workers of an engine and handing them tasks", figures, ratios, began)


if __name__ == "__main__":
    main()
