"""Run notebooks from a fresh kernel and keep what a reader should see: `python .ci/execute.py nbs/05_attention.ipynb ...`

Outputs and figures are saved in place. Live widgets are not (a page without a kernel cannot show them, and their state is
large): the static figure beside each stays. Then run `nbdev_export` and `nbdev_clean`. An error stops, and saves nothing.
"""
import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

WIDGET = "application/vnd.jupyter.widget-view+json"


def without_widgets(notebook):
    "The same notebook without widget views, their state, or when and how often cells ran."
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code": continue
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        cell.metadata.pop("execution", None)
    return notebook


def run(path: Path, timeout: int) -> None:
    notebook = nbformat.read(path, as_version=4)
    # a timeout is also what keeps nbclient from waiting for ever on cells with widgets
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(without_widgets(notebook), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take")
    args = parser.parse_args()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for path in args.notebooks:
        started = time.perf_counter()
        try: run(path, args.timeout)
        except CellExecutionError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        print(f"{path}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1e3:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
