"""Peak memory of a JupyterLab server and the kernel that runs a notebook, beside the 2 GB of Binder.

    python benchmarks/binder_memory.py
    python benchmarks/binder_memory.py --notebook 06_RESNET18_BETATC_VAE --profile smoke

Server, kernel and whatever the kernel starts are counted together twenty times a second, shared pages once
(proportional set size). The notebook runs cell by cell through a kernel that the server started, as in a
browser, and its survey and results go to a temporary folder.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from threading import Event, Thread

import psutil
from jupyter_client import BlockingKernelClient
from jupyter_core.paths import jupyter_runtime_dir

from lensq.study.profiles import read_profile

ROOT = Path(__file__).parents[1]
LIMIT = 2e9


def memory(server: psutil.Process) -> int:
    """Bytes held by a process and all its descendants; pages that several share count once."""
    total = 0
    for process in [server, *server.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def ask(url: str, token: str, path: str, body: dict | None = None) -> dict:
    """One call of the server's interface."""
    request = urllib.request.Request(
        f"{url}/api/{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def start(token: str, port: int) -> tuple[subprocess.Popen, str]:
    """A JupyterLab server as Binder starts one, once it answers."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--port-retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={ROOT}", "--allow-root"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            ask(url, token, "status")
            return server, url
        except OSError:
            time.sleep(0.25)
    server.terminate()
    raise TimeoutError(f"no JupyterLab on port {port} within a minute; try another --port")


def execute(url: str, token: str, notebook: Path, parameters: dict[str, object]) -> None:
    """Run a notebook's cells in a kernel of the server, with parameters behind its parameters cell.

    Raises:
        RuntimeError: a cell failed.
    """
    wanted = {"name": notebook.name, "path": f"notebooks/{notebook.name}", "type": "notebook"}
    session = ask(url, token, "sessions", wanted | {"kernel": {"name": "python3"}})
    file = Path(jupyter_runtime_dir()) / f"kernel-{session['kernel']['id']}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code":
                continue
            sources = ["".join(cell["source"])]
            if "parameters" in cell["metadata"].get("tags", []):
                values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
                sources.append(f"# Parameters\n{values}")
            for source in sources:
                reply = client.execute_interactive(source, timeout=1800, output_hook=lambda message: None)
                if reply["content"]["status"] != "ok":
                    raise RuntimeError("\n".join(reply["content"]["traceback"]))
    finally:
        client.stop_channels()


def main() -> None:
    """Measure, and print peak, time and the ratio to the limit."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--notebook", default="00_start_here", help="name without .ipynb")
    parser.add_argument("--profile", default="smoke", help="smoke, laptop or paper")
    parser.add_argument("--survey", type=Path, help="use this survey; needed by all notebooks but 00")
    parser.add_argument("--port", type=int, default=18888)
    given = parser.parse_args()
    profile = read_profile(ROOT / f"notebooks/profiles/{given.profile}.yml", ROOT / "notebooks")
    token, stop, seen = secrets.token_hex(8), Event(), [0]
    with tempfile.TemporaryDirectory() as folder:
        places = {"survey": str(given.survey or f"{folder}/survey"), "results": f"{folder}/results"}
        server, url = start(token, given.port)
        try:
            process = psutil.Process(server.pid)
            idle = memory(process)

            def watch() -> None:
                while not stop.wait(0.05):
                    seen[0] = max(seen[0], memory(process))

            watcher = Thread(target=watch, daemon=True)
            watcher.start()
            began = time.perf_counter()
            notebook = ROOT / f"notebooks/{given.notebook}.ipynb"
            execute(url, token, notebook, profile[given.notebook] | places)
            seconds = time.perf_counter() - began
        finally:
            stop.set()
            server.terminate()
            server.wait(30)
    print(f"{given.notebook}, profile {given.profile}, {os.cpu_count()} cores: {seconds:.0f} s")
    print(f"server alone {idle / 1e9:.2f} GB, peak with the kernel {seen[0] / 1e9:.2f} GB")
    print(f"peak : 2 GB = {seen[0] / LIMIT:.2f}")


if __name__ == "__main__":
    main()
