"""Move every control of an explorer through its values, and see that it follows.

Run in other environments than the tests' own too, as a program (`python tests/sweep.py`) and from .ci/colab_check.py.
"""
import inspect
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

WIDGET = "application/vnd.jupyter.widget-view+json"


# how many values of a control are tried
WEEKLY = bool(os.environ.get("NANODETR_SLOW") or os.environ.get("NANODETR_ALL"))
MOST = 9 if WEEKLY else 3


def positions_of(control, most=MOST) -> tuple:
    """(the trait that the page sets, up to `most` of its values, spread over all that it can take).

    The values are [] for a control without a list of values (a text, an upload).
    """
    if isinstance(control, widgets.Checkbox): return "value", [False, True]
    if hasattr(control, "options"): trait, values = "index", list(range(len(control.options)))
    elif hasattr(control, "min") and hasattr(control, "max"):
        count = round((control.max - control.min) / control.step)
        trait, values = "value", [type(control.value)(round(control.min + i * control.step, 9)) for i in range(count + 1)]  # as the slider rounds
    else: return "value", []
    if len(values) <= most: return trait, values
    return trait, [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def looks(explorer) -> bytes:
    "The picture's bytes, which must be a PNG that is not of one colour."
    data = bytes(explorer.picture.value)
    with Image.open(io.BytesIO(data)) as picture:
        low, high = picture.convert("L").getextrema()
        assert picture.format == "PNG" and low < high, "an empty picture"
    return data


def sweep(explorer, each: bool = True) -> dict:
    """{control: (values tried, different pictures seen)}; every control is moved back before the next.

    each: every control must change the picture; False: one at least, for an explorer in a state where others need not.
    Raises what drawing raises, and AssertionError where the picture stays the same.
    """
    found, start_values = {}, explorer.values
    for name, control in explorer.controls.items():
        trait, values = positions_of(control)
        if len(values) < 2: continue
        before, start = getattr(control, trait), looks(explorer)
        # a list whose value is None shows an empty line, even where None is the value of an option
        assert before is not None, f"{name!r} shows no choice"
        seen = {start}
        for value in [*values, values[0]]:
            setattr(control, trait, value)
            assert getattr(control, trait) == value, f"{name!r} does not stay at {value}, but goes to {getattr(control, trait)}"
            assert "Error" not in explorer.words.value, explorer.words.value
            seen.add(looks(explorer))
        assert len(seen) > 1 or not each, f"{name!r} changes nothing: {values}"
        if trait == "index":  # once more from the far ends of the sliders: how far they go may depend on what the list says
            for value in [*values, values[0]]:
                setattr(control, trait, value)
                explorer.paused = True
                for slider in explorer.controls.values():
                    if hasattr(slider, "max"): slider.value = slider.max
                explorer.paused = False
        setattr(control, trait, before)
        explorer.set(**start_values)
        found[name] = (len(values), len(seen))
    assert any(pictures > 1 for _, pictures in found.values()), f"no control changes the picture: {found}"
    return found


def sweep_all(names: dict, broken=("toy",)) -> str:
    "Sweep every explorer among the variables `names` of a notebook (not the toy that fails on purpose); says in a line a piece what it did."
    from nanodetr.explorers import Explorer

    said, done = [], []
    for name, value in list(names.items()):
        if not isinstance(value, Explorer) or name.startswith("_") or name in broken or any(value is other for other in done): continue
        done.append(value)
        started = time.perf_counter()
        found = sweep(value, each=False)  # as the notebook left it
        said.append(f"{name}: " + ", ".join(f"{control} {tried} values, {seen} pictures" for control, (tried, seen) in found.items())
                    + f" ({time.perf_counter() - started:.1f} s)")
    return "\n".join(said)


SOME = ("explore_matching", "explore_decoder_attention", "explore_precision_recall")  # the others are moved by their own notebooks, and every week


def explorers() -> dict:
    "{name: function} of the explorers that the library has; but for the weekly run, of some."
    from nanodetr import explorers as module
    # the playground has no controls of ipywidgets: tests/test_playground.py plays with it
    return {name: f for name, f in vars(module).items() if name.startswith("explore_") and name != "explore_live" and callable(f) and (WEEKLY or name in SOME)}


def build(f):
    "An explorer of the function `f`, about the shipped model and a few held-out pictures."
    from nanodetr.data import ShapesDataset
    from nanodetr.evaluation import predict
    from nanodetr.model import DETR
    from nanodetr.explorers import load_snapshots

    val, model = ShapesDataset("val", n=12), DETR.from_pretrained("nano-shapes").eval()
    images, targets = zip(*(val[i] for i in range(len(val))))
    stock = {"model": model, "images": list(images), "targets": list(targets), "classes": val.classes, "snapshots": load_snapshots()}
    names = inspect.signature(f).parameters
    # what is measured comes in pixels
    if "detections" in names: stock["detections"], stock["targets"] = predict(model, val, progress=False)
    required = [name for name, parameter in names.items() if parameter.default is parameter.empty]
    if unknown := [name for name in required if name not in stock]:
        raise LookupError(f"tests/sweep.py does not say what {f.__name__} gets as {', '.join(unknown)}: add it to build()")
    python = {"live": False} if "live" in names else {}  # the form that the browser draws is moved in a browser (test_browser.py)
    return f(**{name: stock[name] for name in required}, **python)


def shows(explorer) -> bool:
    "Whether a cell that ends with it gets a widget."
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import display
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    with capture_output() as shown: display(explorer)
    return any(WIDGET in output.data for output in shown.outputs)


def main() -> None:
    "Sweeps every explorer; writes {name: {control: [values, pictures]} or a traceback} to the file sys.argv[1]."
    import IPython
    told = {"versions": {"ipywidgets": widgets.__version__, "IPython": IPython.__version__}}
    for name, f in explorers().items():
        try:
            explorer = build(f)
            assert shows(explorer), "it is not shown as a widget"
            told[name] = sweep(explorer)
        except Exception: told[name] = traceback.format_exc()
    Path(sys.argv[1]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
