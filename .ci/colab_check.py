"""Run notebooks top to bottom on Colab's versions: `python .ci/colab_check.py DIR [nbs/05_attention.ipynb ...]`

DIR is an environment that .ci/colab_env.sh made. Without names, those notebooks run that changed since NANODETR_BASE (by default
the commit before the last one), and a fixed sample; with --all, all of them. Every explorer that a notebook leaves
behind is moved through all values of its controls, and must be shown as a widget. Nothing is written. Cells flagged slow, gpu or notest are
left out, as in nbdev_test.
"""
import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ("00_tour.ipynb", "09_matching.ipynb")  # what Colab users open first, and what draws most; an explorer each
WIDGET = "application/vnd.jupyter.widget-view+json"
LEFT_OUT = re.compile(r"^\s*#\s*\|\s*(slow|gpu|notest|eval:\s*false)\b", re.M)
SWEEP = f"import sys; sys.path.append({str(ROOT / 'tests')!r})\nfrom sweep import sweep_all\nprint(sweep_all(globals()))"
VERSIONS = "import sys; print('Python', sys.version.split()[0])\nfor name in 'IPython ipywidgets ipykernel traitlets jupyter_client matplotlib numpy scipy fastcore torch torchvision'.split(): print(name, __import__(name).__version__)"


def check(path: Path, folder: Path, timeout: int) -> tuple[bool, str]:
    "Whether one notebook runs, and a line about it."
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type != "code" or not LEFT_OUT.search(cell.source)]
    for cell in notebook.cells:
        if cell.cell_type == "code": cell.outputs = []
    explores = any("Explorer" in cell.source or "explore_" in cell.source for cell in notebook.cells if cell.cell_type == "code")
    if explores: notebook.cells.append(nbformat.v4.new_code_cell(SWEEP))
    kernels = KernelSpecManager(kernel_dirs=[str(folder / "share" / "jupyter" / "kernels")], ensure_native_kernel=False)
    client = NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(path.parent)}},
                            km=KernelManager(kernel_name="colab", kernel_spec_manager=kernels))
    started = time.perf_counter()
    try: client.execute()
    except CellExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
        return False, f"{path.name}: {error.ename}: {error.evalue}\n" + "\n".join(plain if len(plain) < 60 else [*plain[:20], "...", *plain[-30:]])
    finally:
        if client.km.has_kernel: client.km.shutdown_kernel(now=True)  # not its own, so it does not: a gigabyte each
    said = f"{path.name}: ran, {time.perf_counter() - started:.0f} s"
    if explores:
        shown = sum(WIDGET in output.get("data", {}) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
        swept = "".join(output.get("text", "") for output in notebook.cells[-1].outputs).strip()
        said += f", {shown} widgets shown" + "".join("\n    " + line for line in swept.splitlines())
        if swept and not shown: return False, said + "\n    no explorer is shown as a widget"
    return True, said


def changed() -> set:
    "Notebooks that differ from NANODETR_BASE; all of them where git does not know that commit."
    base = os.environ.get("NANODETR_BASE") or "HEAD~1"
    done = subprocess.run(["git", "diff", "--name-only", base, "--", "nbs"], cwd=ROOT, capture_output=True, text=True)
    return {ROOT / line for line in done.stdout.split("\n")} if done.returncode == 0 else set(everything())


def everything() -> list:
    "All notebooks but the solutions, which have neither figures nor widgets."
    return sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if not {"solutions", ".ipynb_checkpoints"} & set(path.parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", type=Path)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true", help="every notebook")
    parser.add_argument("--workers", type=int, default=2, help="notebooks at a time")
    parser.add_argument("--timeout", type=int, default=600, help="seconds a cell may take")
    args = parser.parse_args()
    if not (args.environment / "share" / "jupyter" / "kernels" / "colab").is_dir():
        parser.error(f"{args.environment} has no kernel of Colab's versions: .ci/colab_env.sh {args.environment}")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.update(IN_TEST="1", PYDEVD_DISABLE_FILE_VALIDATION="1", PYTHONPATH=path)
    print(subprocess.run([args.environment / "bin" / "python", "-c", VERSIONS], check=True, capture_output=True, text=True).stdout.replace("\n", ", "), flush=True)
    failed = 0
    sample = {ROOT / "nbs" / name for name in SAMPLE} | changed()
    notebooks = args.notebooks or [path for path in everything() if args.all or path in sample]
    with ThreadPoolExecutor(args.workers) as pool:
        for fine, said in pool.map(lambda path: check(path, args.environment, args.timeout), notebooks):
            print(said if fine else f"FAILED {said}", file=sys.stdout if fine else sys.stderr, flush=True)
            failed += not fine
    print(f"{len(notebooks) - failed} of {len(notebooks)} notebooks run on Colab's versions")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
