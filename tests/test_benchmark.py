"The benchmark: every row runs at tiny size, in this process; what computes something else is never timed; missing peers are named."
import contextlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nanodetr import benchmark
from nanodetr.benchmark import BenchmarkError, MissingPeer, Row, Settings, compare, main
from nanodetr.cli import main as command_line

TINY = Settings(repeats=1, tiny=True)


def run_here(*arguments, env=None, **options):
    "In place of a Python process of its own: the same program in this one. Returns what it prints."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        if arguments[0] == "-c":
            patch.setattr(sys, "argv", ["-c", *map(str, arguments[2:])])
            exec(arguments[1], {})
        else:
            with contextlib.suppress(SystemExit): command_line([str(a) for a in arguments[2:]])
    return out.getvalue()


ELSEWHERE = ("inference-8", "detect")  # the first is inference-1 with more pictures; nbs/tools/benchmark.ipynb runs the second


@pytest.mark.parametrize("name", [name for name in benchmark.ROWS if name not in ELSEWHERE])
def test_every_row_gives_a_ratio_or_names_what_is_missing(name, monkeypatch):
    monkeypatch.setattr(benchmark, "run_python", run_here)
    if name == "memory": monkeypatch.setattr(benchmark, "resident", lambda: 0.0)  # this process has had its peak already
    rows = benchmark.run_rows([name], TINY)
    assert rows and {row.name for row in rows} == {name}
    for row in rows:
        if row.skipped: assert "pip install" in row.skipped or "git" in row.skipped or "Linux" in row.skipped
        else:
            assert all(math.isfinite(value) and value > 0 for value in (row.ours, row.theirs, row.ratio, row.low, row.high))
            assert row.rounds == 1 and row.difference < 0.02
    if name == "criterion-loop": assert len(rows) == 1 and not rows[0].skipped  # needs nobody


SLOW = pytest.mark.skipif(not os.environ.get("NANODETR_SLOW"), reason="many seconds of one core: NANODETR_SLOW=1")


@pytest.mark.parametrize("name", ["transformer", pytest.param("step", marks=SLOW)])
def test_half_precision_beside_half_precision(name):
    rows = [row for row in benchmark.run_rows([name], Settings(1, "cpu", ("bf16",), True)) if not row.skipped]
    assert {row.arithmetic for row in rows} <= {"bf16"} and all(row.ratio > 0 and row.difference < 0.15 for row in rows)


@pytest.mark.parametrize("kind", ["bf16", "fp32"])
def test_a_wrong_peer_is_caught_before_anything_is_timed(monkeypatch, kind):
    try: peer, _ = benchmark.official_model(benchmark.our_model(TINY))
    except MissingPeer as error: pytest.skip(str(error))
    with torch.no_grad(): peer.class_embed.bias += 1.0 if kind == "bf16" else 0.02
    monkeypatch.setattr(benchmark, "gather", lambda makers: ({"official": peer}, {}))
    monkeypatch.setattr(benchmark, "alternate", lambda *args, **more: pytest.fail("it was timed"))
    with pytest.raises(BenchmarkError, match=f"inference-1: ours in {kind} and official in {kind} differ by .*nothing was timed"):
        benchmark.run_rows(["inference-1"], Settings(1, "cpu", (kind,), True))


def test_wrong_losses_and_wrong_scores_are_caught(monkeypatch):
    monkeypatch.setattr(benchmark, "alternate", lambda *args, **more: pytest.fail("it was timed"))
    looped = benchmark.looped_loss
    monkeypatch.setattr(benchmark, "looped_loss", lambda *args: looped(*args, no_object=0.2))
    with pytest.raises(BenchmarkError, match="criterion-loop"): benchmark.run_rows(["criterion-loop"], TINY)
    for wrong in (float("nan"), float("inf"), [1.0, 1.0], "one", 1.01):
        with pytest.raises(BenchmarkError): compare("toy", "a number", {("ours", "fp32"): lambda: 1.0, ("peer", "fp32"): lambda wrong=wrong: wrong}, TINY)


@pytest.mark.weekly
def test_a_missing_peer_is_skipped_by_name_with_the_remedy(monkeypatch, capsys):
    monkeypatch.delenv("NANODETR_PEERS", raising=False)
    benchmark.official_code.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(benchmark, "BEFORE", "0000000")
    try: rows = benchmark.run_rows(["inference-1", "step", "transformer", "criterion", "loading", "detect"], TINY)
    finally: benchmark.official_code.cache_clear()
    assert [row.peer for row in rows] == ["official", "Hugging Face", "official", "Hugging Face", "official", "official", "official", "eager PyTorch"]
    assert all("pip install" in row.skipped and row.ratio is None for row in rows)
    with pytest.raises(MissingPeer, match="0000000"): benchmark.older_library("unused", "0000000")
    assert "skipped: " in benchmark.as_line(rows[0])


@pytest.mark.parametrize("measured", [True, False])
def test_the_pages_table_and_figure_with_and_without_peers(measured, capsys, monkeypatch):
    "README's command runs notebook 17 where no peer is installed."
    monkeypatch.delenv("NANODETR_GPU_BENCHMARK", raising=False)
    cells = json.loads((Path(__file__).parent.parent / "nbs" / "17_benchmarks.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = {"rows": [Row("step", "official", "a step", ours=1.0, theirs=2.0, ratio=2.0, low=1.9, high=2.1, rounds=1) if measured else Row("step", "official", "a step", skipped="pip install it")]}
    for part in ("import json", "gpu_file = ", "def plot_ratios"):
        source, = (source for source in sources if source.startswith(part) or part in source and part.startswith("def"))
        exec(source.rpartition("\n")[0] if part == "gpu_file = " else source, found)
    assert ("**2.00**" if measured else "skipped: pip install it") in "\n".join(found["lines"])
    assert ("no peer is installed" in capsys.readouterr().out) != measured


def test_the_command(capsys, monkeypatch):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(benchmark.ROWS) and all(len(line.split()) > 4 for line in listed)
    assert main(["criterion-loop", "--tiny", "--repeats", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["machine"]["torch"] == torch.__version__ and answer["settings"]["repeats"] == 2
    [row] = [Row(**row) for row in answer["rows"]]
    assert row.name == "criterion-loop" and row.rounds == 2 and row.ratio > 0
    assert main(["criterion-loop", "--tiny", "--repeats", "1"]) == 0
    assert "plain loop" in capsys.readouterr().out
    for wrong, word in ((["nothing"], "nothing"), (["--repeats", "0"], "--repeats"), *([(["--device", "cuda"], "GPU")] if not torch.cuda.is_available() else [])):
        with pytest.raises(SystemExit) as stop: main(wrong)
        complaint = capsys.readouterr().err
        assert stop.value.code == 2 and word in complaint and len(complaint.splitlines()) == 1
    monkeypatch.setitem(benchmark.ROWS, "criterion", lambda settings: compare("criterion", "toy", {("ours", "fp32"): lambda: 1, ("peer", "fp32"): lambda: 2}, settings))
    assert main(["criterion", "--tiny"]) == 1
    complaint = capsys.readouterr().err
    assert "differ by 0.5" in complaint and len(complaint.splitlines()) == 1


def test_a_program_that_fails_is_quoted():
    with pytest.raises(BenchmarkError, match="ValueError: no luck"): benchmark.run_python("-c", "raise ValueError('no luck')", env=dict(os.environ))


# ---------------------------------------------------------------------------- what a machine with a GPU will run

def gpu_script(name):
    "A module of tests/gpu, which is no package."
    path = Path(__file__).parent / "gpu" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_trainings_for_a_gpu_rehearse_here(tmp_path, capsys):
    "Inputs are prepared, three trainings run, and the results lie in the folder."
    gpu_script("prepare").main([str(tmp_path / "inputs"), "--tiny"])
    assert json.loads(capsys.readouterr().out)["MB"] < 45
    assert gpu_script("photos").main([str(tmp_path / "inputs"), "--rehearse", "--data", "bccd", "--recipes", "photos", "cures", "faster-rcnn", "--out", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "photos.json").read_text())
    assert results["device"] == "cpu" and [r["recipe"] for r in results["trainings"]] == ["photos", "cures", "faster-rcnn"]
    assert all(r["steps"] > 0 and 0 <= r["test"]["AP50"] <= 1 for r in results["trainings"])
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"photos.json"} | {f"bccd-{r}{end}.png" for r in ("photos", "cures", "faster-rcnn") for end in ("", "-loss")}


def test_weights_in_eight_bits_are_nearly_the_same(tmp_path):
    prepare, state = gpu_script("prepare"), {"conv1.weight": torch.randn(8, 3, 7, 7), "bn1.weight": torch.randn(8), "fc.weight": torch.randn(2, 2)}
    file = tmp_path / "w.safetensors"
    prepare.save_file(prepare.to_bytes(state), file)
    back = prepare.from_bytes(file)
    assert set(back) == {"conv1.weight", "bn1.weight"} and torch.equal(back["bn1.weight"], state["bn1.weight"])
    assert 0 < benchmark.difference(back["conv1.weight"], state["conv1.weight"]) < 0.02


def test_a_recipe_without_a_kept_head_leaves_the_others(monkeypatch):
    photos, told = gpu_script("photos"), SimpleNamespace(head=True)
    monkeypatch.setattr(photos, "build", lambda *_: (None, 1e-4))
    monkeypatch.setattr(photos, "load_head", lambda model: None)
    with pytest.raises(Exception, match="no head is kept for cures: make it with --pretrain"): photos.train_detr("cures", SimpleNamespace(classes=["a"]), None, told)


def test_the_script_knows_what_it_needs(tmp_path):
    script = Path(__file__).parent / "gpu" / "run.sh"
    run = lambda **env: subprocess.run(["bash", str(script)], capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "OUT"} | env)
    assert "where should the results go" in run().stderr
    missing = run(OUT=str(tmp_path / "out"), INPUTS=str(tmp_path / "nothing"))
    assert missing.returncode == 2 and "prepare.py" in missing.stderr
    unknown = subprocess.run(["bash", str(script), "test"], capture_output=True, text=True, env=os.environ | {"OUT": str(tmp_path / "out")})
    assert unknown.returncode == 2 and "no part test: choose of tests" in unknown.stderr


@SLOW
def test_the_whole_rehearsal(tmp_path):
    script = Path(__file__).parent / "gpu" / "run.sh"
    done = subprocess.run(["bash", str(script), "--rehearse"], capture_output=True, text=True, env=os.environ | {"OUT": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert [s["step"] for s in steps] == ["prepare", "tests", "row-criterion", "row-transformer", "pretrain", "photos"] and not any(s["exit"] for s in steps)
    assert json.loads((tmp_path / "benchmark.json").read_text())["rows"] and json.loads((tmp_path / "photos.json").read_text())["trainings"]
    assert "skipped=\"0\"" in (tmp_path / "tests.xml").read_text() and (tmp_path / "syncs.json").exists()


def test_the_parallel_pages_step_is_the_measured_one():
    rows = json.loads((Path(__file__).parent / "gpu/h100.json").read_text())["rows"]
    step = next(r["ours"] for r in rows if (r["name"], r["peer"], r["arithmetic"]) == ("step", "official", "compiled / bf16"))
    assert f"speed = 2 / {step}" in (Path(__file__).parents[1] / "nbs/runs/parallel.ipynb").read_text()
