"""Run notebooks from a fresh kernel and keep what a reader should see: `python .ci/execute.py nbs/05_attention.ipynb ...`

Outputs and figures are saved in place. Live widgets are not (a page without a kernel cannot show them, and their state is
large): the static figure beside each stays, in as few colours as nobody can tell from the drawn ones. Then run `nbdev_export`
and `nbdev_clean`. An error stops, and saves nothing. `--figures` executes nothing and only makes the saved figures smaller.
"""
import argparse
import base64
import io
import os
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

WIDGET = "application/vnd.jupyter.widget-view+json"


def without_widgets(notebook):
    "The same notebook without widget views, their state, or when and how often cells ran."
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code": continue
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        cell.metadata.pop("execution", None)
    return notebook


def squeezed(png: bytes) -> bytes:
    "The same picture, packed more tightly where zopfli is installed (`pip install zopfli`; some percent, and a second each)."
    try: import zopfli.png
    except ImportError: return png
    return min(png, zopfli.png.optimize(png), key=len)


def smaller(png: bytes) -> bytes:
    """The same opaque picture in fewer colours: off by 1.5 of 255 on average at most, and by 20 in at most one pixel of 200.

    And nowhere in a square of 2 x 2 pixels: a dot or a line that has another colour is few pixels, and everything to its reader.
    """
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P": return squeezed(png)  # it was made smaller before: a second time would add to what is off
    picture = picture.convert("RGBA")
    if np.asarray(picture)[..., 3].min() < 255: return png
    picture = picture.convert("RGB")
    for colours in (48, 64, 96, 128, 192):
        few = picture.quantize(colours, dither=Image.Dither.NONE, kmeans=2)
        gap = np.abs(np.asarray(few.convert("RGB"), dtype=int) - np.asarray(picture, dtype=int)).max(-1)
        wrong = gap > 20
        if gap.mean() > 1.5 or wrong.mean() > 0.005 or (wrong[1:, 1:] & wrong[1:, :-1] & wrong[:-1, 1:] & wrong[:-1, :-1]).any(): continue
        out = io.BytesIO()
        few.save(out, "PNG", optimize=True)
        return squeezed(out.getvalue() if out.tell() < 0.95 * len(png) else png)
    out = io.BytesIO()  # a picture that needs all of its colours: without the layer that says it is opaque
    picture.save(out, "PNG", optimize=True)
    return squeezed(out.getvalue() if out.tell() < 0.95 * len(png) else png)


def with_smaller_figures(notebook):
    "The same notebook with its PNG outputs made smaller."
    for output in (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs):
        if png := output.get("data", {}).get("image/png"):
            few = smaller(base64.b64decode(png))
            if few != base64.b64decode(png): output["data"]["image/png"] = base64.b64encode(few).decode()
    return notebook


def run(path: Path, timeout: int, figures: bool) -> None:
    notebook = nbformat.read(path, as_version=4)
    if figures: return nbformat.write(with_smaller_figures(notebook), path)
    # a timeout is also what keeps nbclient from waiting for ever on cells with widgets
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(with_smaller_figures(without_widgets(notebook)), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take")
    parser.add_argument("--figures", action="store_true", help="execute nothing: only make the saved figures smaller")
    args = parser.parse_args()
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for path in args.notebooks:
        started = time.perf_counter()
        try: run(path, args.timeout, args.figures)
        except CellExecutionError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        print(f"{path}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1e3:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
