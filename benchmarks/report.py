"""What every benchmark shares: the machine it ran on, and its figures as lines and as a JSON file.

    python benchmarks/report.py

Prints one table of all ratios that are kept in `benchmarks/results`.
"""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

try:
    import torch
except ImportError:  # `engines.py` may run in an environment of its own
    torch = None


def options(description: str) -> argparse.ArgumentParser:
    """A parser that has `--json`, the file that the figures go to."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser


def machine() -> dict[str, object]:
    """Cores, memory, load and software, without the names of anything but a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    return {
        "cores": cores,
        "memory_gb": round(memory / 1e9),
        "load": round(os.getloadavg()[0], 1),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch and torch.__version__,
    }


def write(
    given: argparse.Namespace, claim: str, figures: list[dict], ratios: dict[str, float], began: dict
) -> None:
    """Write the figures to the file that was asked for, if any.

    Args:
        given: the parsed options; they are recorded.
        claim: what the benchmark measures, in a sentence.
        figures: rows of a table: "what", "value", "unit" and whatever else tells them apart.
        ratios: each against its baseline in the same run.
        began: `machine()` at the start, before the benchmark itself made load.
    """
    if not given.json:
        return
    places = (
        "json",
        "out",
        "scratch",
        "trained",
        "child",
        "build",
        "begun",
        "image_seconds",
    )  # of this machine alone
    settings = {name: value for name, value in vars(given).items() if name not in places}
    document = {
        "claim": claim,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": began,
        "settings": settings,
        "figures": figures,
        "ratios": ratios,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document, indent=1, default=str) + "\n")


def main() -> None:
    """Print each claim with its ratio, baseline and machine."""
    from lensq.study.costs import ratio_table, read_benchmarks

    documents = read_benchmarks(Path(__file__).parent / "results")
    table = ratio_table(documents)
    table.insert(0, "claim", table.pop("benchmark").map(lambda name: documents[name]["claim"]))
    print(table.to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
