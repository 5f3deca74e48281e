"""Move every control of an explorer through its values, and see that it follows.

Imported by tests, and run in other environments (.ci/colab_check.py), so it needs nothing but ipywidgets and what it is given.
"""
import io
import time

import ipywidgets as widgets
from PIL import Image


def values_of(control, most=9) -> list:
    "Up to `most` values of a control, spread over all that it can take; [] for one that has no list of values (a text, an upload)."
    if isinstance(control, widgets.Checkbox): return [False, True]
    if hasattr(control, "options"): values = list(getattr(control, "_options_values", control.options))
    elif hasattr(control, "min") and hasattr(control, "max"):
        step = getattr(control, "step", None) or 1
        count = round((control.max - control.min) / step)
        values = [type(control.value)(control.min + i * step) for i in range(count + 1)]
    else: return []
    if len(values) <= most: return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def looks(explorer) -> bytes:
    "The picture's bytes, which must be a PNG that is not of one colour."
    data = bytes(explorer.picture.value)
    with Image.open(io.BytesIO(data)) as picture:
        low, high = picture.convert("L").getextrema()
        assert picture.format == "PNG" and low < high, "an empty picture"
    return data


def sweep(explorer) -> dict:
    """{control: (values tried, different pictures seen)}; afterwards every control is back where it was.

    Raises what drawing raises, and AssertionError where no value of a control changes the picture.
    """
    found = {}
    for name, control in explorer.controls.items():
        before, start = control.value, looks(explorer)
        if len(values := values_of(control)) < 2: continue
        seen = {start}
        for value in values:
            control.value = value
            assert explorer.values[name] == value and "Error" not in explorer.words.value, explorer.words.value
            seen.add(looks(explorer))
        control.value = before
        assert len(seen) > 1, f"{name!r} changes nothing: {values}"
        found[name] = (len(values), len(seen))
    assert found, "an explorer without a control to move"
    return found


def sweep_all(names: dict, broken=("toy",)) -> str:
    "Sweep every explorer among the variables `names` of a notebook (not the toy that fails on purpose); says in a line a piece what it did."
    from nanodetr.widgets import Explorer

    said, done = [], []
    for name, value in list(names.items()):
        if not isinstance(value, Explorer) or name.startswith("_") or name in broken or any(value is other for other in done): continue
        done.append(value)
        started = time.perf_counter()
        found = sweep(value)
        said.append(f"{name}: " + ", ".join(f"{control} {tried} values, {seen} pictures" for control, (tried, seen) in found.items())
                    + f" ({time.perf_counter() - started:.1f} s)")
    return "\n".join(said)
