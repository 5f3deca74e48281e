"""Other runtimes: the same answers compiled, exported and as ONNX; padded and not; and one line for what goes wrong.

An export takes seconds, so the models here are small ones of each kind, and official and Hugging Face checkpoints are only compiled.
NANODETR_SLOW=1 compiles and exports everything to ONNX, the presets at their full size.
"""
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nanodetr.backbone import ConvBackbone, ResNetBackbone
from nanodetr.checkpoints.config import MODEL_PRESETS, DETRConfig
from nanodetr.checkpoints.export import (MaskedConv, MaskedResNet, OnnxDETR, export_model, exportable, exported_bytes, named_outputs,
                                         onnx_bytes)
from nanodetr.cli import main
from nanodetr.data import ShapesDataset, collate
from nanodetr.errors import CheckpointError, DataError
from nanodetr.evaluation import predict
from nanodetr.model import DETR
from test_pretrained import SMALL_HF, hf_detr, official, official_detr, randomise, transformers  # noqa: F401, fixtures

pytestmark = pytest.mark.xdist_group("export")  # its fixtures are costly
SLOW = bool(os.environ.get("NANODETR_SLOW"))
slow = pytest.mark.skipif(not SLOW, reason="minutes: NANODETR_SLOW=1")
FEW = dict(dim=32, heads=4, ffn_dim=48, encoder_layers=1, decoder_layers=2, num_queries=7)
TINY = dict(backbone="conv", conv_widths=(8, 16), num_classes=4, classes=["rectangle", "ellipse", "triangle", "cross"], norm_first=True,
            temperature=20.0, query_start="query", image_size=64, max_size=128, **FEW)
SIZES = ((64, 96), (81, 70), (40, 90))


@pytest.fixture(scope="module")
def runtime():
    "onnxruntime, onnx and onnxscript, or the test is skipped."
    for name in ("onnx", "onnxscript", "onnxruntime"): pytest.importorskip(name)


def build(**config) -> DETR:
    torch.manual_seed(0)
    return randomise(DETR(DETRConfig(**config)))


def padded(sizes=SIZES) -> tuple:
    "Images and mask of pictures of these sizes."
    generator = torch.Generator().manual_seed(0)
    return collate([(torch.rand(3, *size, generator=generator), {}) for size in sizes])[:2]


@torch.no_grad()
def agree(theirs, model, images, mask, need_weights=False, logits=2e-4, boxes=2e-5) -> bool:
    "Whether another form gives the model's named outputs."
    wanted, found = named_outputs(model(images, mask, need_weights), need_weights), theirs(images, mask)
    found = found if isinstance(found, dict) else named_outputs(found, need_weights)
    assert found.keys() == wanted.keys()
    return all((found[name] - wanted[name]).abs().max() <= (boxes if "boxes" in name else logits) for name in wanted)


# --- a padded batch as one computation

BACKBONES = {"conv": lambda: ConvBackbone(), "r18": lambda: ResNetBackbone("resnet18"), "r50": lambda: ResNetBackbone("resnet50"),
             "dc5 of version 1": lambda: ResNetBackbone("resnet50", dilation=True, stride_first=True)}


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_masked_backbones_are_the_sealed_ones(name):
    "On pictures of odd sizes, one of a single pixel, and one that fills the batch; without the masking the same batch gives something else."
    torch.manual_seed(0)
    body = randomise(BACKBONES[name]())
    images, mask = padded(((64, 96), (81, 64), (33, 90), (1, 1), (96, 97)))
    masked = (MaskedConv if isinstance(body, ConvBackbone) else MaskedResNet)(body)
    (features, small), (ours, shrunk) = body(images, mask), masked(images, mask)
    scale = features.abs().max()
    assert torch.equal(small, shrunk) and (features - ours).abs().max() < 1e-5 * scale
    assert (body.body(images).masked_fill(small[:, None], 0) - features).abs().max() > 1e-3 * scale
    assert torch.equal(masked(images, None)[0], body.body(images)) and masked(images, None)[1] is None


def test_the_model_stays_as_it_was():
    model = build(**TINY).train()
    twin = exportable(model)
    assert model.training and not twin.training and isinstance(model.backbone, ConvBackbone)
    assert all(p.requires_grad for p in model.parameters()) and not any(p.requires_grad for p in twin.parameters())
    assert model.state_dict().keys() == twin.state_dict().keys()


# --- torch.compile and torch.export

def preset(name: str) -> dict:
    "A preset; the large ones with a ResNet-18 and few layers, unless there is time."
    return MODEL_PRESETS[name] | ({} if SLOW or name == "nano" else {"backbone": "resnet18", **FEW})


@pytest.mark.parametrize("name, mask", [(name, mask) for name in MODEL_PRESETS for mask in (False, True) if SLOW or name == "nano" or (mask and name in ("photos-fast", "paper"))],
                         ids=lambda value: value if isinstance(value, str) else "padded" if value else "alone")
def test_presets_compile_as_one_graph(name, mask):
    torch._dynamo.reset()
    model = build(**preset(name))
    images, padding = padded()
    compiled = torch.compile(exportable(model), fullgraph=True, backend="eager")
    assert agree(compiled, model, images, padding if mask else None)


@pytest.mark.parametrize("changes", [dict(attention="abstraction", positions="learned"), dict(encoder_layers=0, decoder_layers=1)], ids=["headwise, learned", "no encoder"])
def test_other_designs_compile_as_one_graph(changes):
    torch._dynamo.reset()
    model = build(**TINY | changes)
    assert agree(torch.compile(exportable(model), fullgraph=True, backend="eager"), model, *padded())


def test_the_sealed_path_itself_is_no_graph():
    "What `exportable` is for: with a mask, the model's own backbone loops over sizes."
    torch._dynamo.reset()
    with pytest.raises(Exception, match="(?i)data.dependent|graph break|unsupported|tolist"):
        torch.compile(build(**TINY), fullgraph=True, backend="eager")(*padded())


CASES = {"plain": (TINY, {}), "learned, one layer, masked, attention": (TINY | dict(positions="learned", encoder_layers=0, decoder_layers=1), dict(mask=True, attention=True, layers=True))}


@pytest.mark.parametrize("case", [pytest.param("plain", marks=pytest.mark.weekly), *list(CASES)[1:]])  # nbs/checkpoints/export writes a plain one
def test_programs_take_all_sizes(case, tmp_path):
    config, flags = CASES[case]
    model = build(**config)
    export_model(model, tmp_path / "model.pt2", **flags)
    assert b"/nanodetr/" not in (tmp_path / "model.pt2").read_bytes()
    more = {"nanodetr.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=more).module()
    call = program if "mask" in flags else lambda images, mask: program(images)
    for sizes in (SIZES, ((64, 64),), ((30, 111), (111, 30))):
        images, mask = padded(sizes)
        if mask is None and "mask" in flags: mask = torch.zeros_like(images[:, 0], dtype=torch.bool)
        assert agree(call, model, images, mask if "mask" in flags else None, "mask" in flags)
    facts = json.loads(more["nanodetr.json"])
    assert json.loads(facts["classes"]) == TINY["classes"] and DETRConfig.from_json(facts["config"]) == model.config


# --- ONNX

@pytest.fixture(scope="module")
def folder(runtime, tmp_path_factory):
    "A folder with a model, `run`, the model.onnx that the command made of it, what the command said, and two photos."
    place = tmp_path_factory.mktemp("export")
    build(**TINY).save_pretrained(place / "run")
    said = io.StringIO()
    with contextlib.redirect_stdout(said): assert main(["export", str(place / "run"), str(place / "model.onnx")]) == 0
    (place / "said.txt").write_text(said.getvalue())
    for k, size in enumerate((96, 130)):
        pixels = (ShapesDataset("val", size=size, n=4)[k][0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels[:70 + 9 * k]).save(place / f"{k}.png")
    return place


@pytest.fixture(scope="module")
def tiny(folder):
    "(model, its graph without a mask)"
    import onnx
    return DETR.from_pretrained(folder / "run"), onnx.load(str(folder / "model.onnx"))


def run(capsys, *words) -> tuple:
    capsys.readouterr()
    try: status = main([str(word) for word in words])
    except SystemExit as end: status = end.code
    return status, *capsys.readouterr()


def test_onnx_gives_the_models_answers(tiny):
    model, graph = tiny
    theirs = OnnxDETR(onnx_bytes(graph, model))
    images, mask = padded()
    assert agree(theirs, model, images, None) and agree(theirs, model, images[:1, :, :5, :7], None)
    assert agree(theirs, model, images, mask), "pictures of different sizes go one by one where there is no mask"
    pictures = [image[:, :h, :w] for image, (h, w) in zip(images, SIZES)]
    for ours, found in zip(model.detect(pictures, 0.1), theirs.detect(pictures, 0.1), strict=True):
        assert len(ours["scores"]) and torch.equal(ours["labels"], found["labels"])
        assert torch.allclose(ours["boxes"], found["boxes"], atol=1e-2) and torch.allclose(ours["scores"], found["scores"], atol=1e-4)
    assert theirs.config == model.config and theirs.dtype == "float32" and not theirs.takes_mask
    facts = theirs.session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == TINY["classes"] and (facts["image_size"], facts["max_size"]) == ("64", "128")
    assert [g.name for g in theirs.session.get_inputs()] == ["images"] and theirs.outputs == ["logits", "boxes"]


def test_onnx_holds_no_paths(tiny):
    data = onnx_bytes(tiny[1], tiny[0])
    assert b"/nanodetr/" not in data and b".py" not in data and b"forward" not in data


def test_smaller_numbers(tiny):
    "Smaller files, whose answers are near and not the same."
    model, graph = tiny
    images = padded()[0]
    sizes, probabilities = [], lambda model: model(images).logits.softmax(-1)
    with torch.no_grad(): wanted = probabilities(model)
    for dtype, least, most in (("float32", 0, 1e-5), ("float16", 1e-6, 0.02), ("int8", 1e-5, 0.2)):
        theirs = OnnxDETR(onnx_bytes(graph, model, dtype))
        sizes.append(len(onnx_bytes(graph, model, dtype)))
        gap = (probabilities(theirs) - wanted).abs().max()
        assert theirs.dtype == dtype and least <= gap <= most, (dtype, gap)
    assert sizes[2] < sizes[0]


@slow  # the notebook does it with the shipped model
def test_a_mask_and_all_outputs(runtime):
    model = build(**TINY)
    theirs = OnnxDETR(exported_bytes(model, "all.onnx", mask=True, attention=True, layers=True))
    for sizes in (SIZES, ((64, 64),)):
        assert agree(theirs, model, *padded(sizes), need_weights=True)
    images, mask = padded()
    assert theirs(images, mask).attention["shape"] == model(images, mask, True).attention["shape"] == (21, 24)
    assert not agree(lambda images, mask: theirs(images), model, images, mask, need_weights=True), "the mask is used"
    for wrong, says in (((images[0], None), "pass (B,3,H,W)"), ((images[:, :1], None), "pass (B,3,H,W)"), ((images, mask[:1]), "pass (B,H,W)"), ((images, mask[..., 1:]), "pass (B,H,W)")):
        with pytest.raises(DataError, match=re.escape(says)): theirs(*wrong)


@slow
@torch.no_grad()
def test_an_official_checkpoint(official, runtime):
    "Padding and all: that code lets padding into its features, and so does the file."
    theirs, _ = official_detr(official, 7, hidden_dim=32, nheads=4, dim_feedforward=48, enc_layers=1, dec_layers=2, backbone="resnet18")
    model = DETR.from_pretrained(theirs.state_dict(), heads=4, seal_padding=False)
    images, mask = padded()
    found = OnnxDETR(exported_bytes(model, "official.onnx", mask=True))(images, mask)
    answer = theirs([(image[:, :h, :w] - model.mean) / model.std for image, (h, w) in zip(images, SIZES)])
    assert (found.logits - answer["pred_logits"]).abs().max() < 2e-4 and (found.boxes - answer["pred_boxes"]).abs().max() < 2e-5


@slow
def test_a_hugging_face_checkpoint(transformers, runtime):
    theirs = hf_detr(transformers, **SMALL_HF)
    model = DETR.from_pretrained(theirs.state_dict(), config=theirs.config)
    assert agree(OnnxDETR(exported_bytes(model, "hf.onnx", mask=True)), model, *padded())


def test_an_official_checkpoint_compiles(official):
    torch._dynamo.reset()
    theirs, _ = official_detr(official, 7, hidden_dim=32, nheads=4, dim_feedforward=48, enc_layers=1, dec_layers=2, backbone="resnet18")
    model = DETR.from_pretrained(theirs.state_dict(), heads=4, seal_padding=False)
    assert agree(torch.compile(exportable(model), fullgraph=True, backend="eager"), model, *padded())


def test_a_hugging_face_checkpoint_compiles(transformers):
    torch._dynamo.reset()
    theirs = hf_detr(transformers, **SMALL_HF)
    model = DETR.from_pretrained(theirs.state_dict(), config=theirs.config)
    assert agree(torch.compile(exportable(model), fullgraph=True, backend="eager"), model, *padded())


@slow
@pytest.mark.parametrize("mask", [False, True], ids=["alone", "padded"])
@pytest.mark.parametrize("name", MODEL_PRESETS)
def test_every_preset_in_onnx(name, mask, runtime):
    model = build(**preset(name))
    theirs = OnnxDETR(exported_bytes(model, "preset.onnx", mask=mask))
    assert agree(theirs, model, padded()[0], padded()[1] if mask else None, logits=2e-3, boxes=2e-4)


# --- the commands

def test_export_then_detect(folder, capsys):
    said = (folder / "said.txt").read_text()
    assert "model.onnx" in said and "float32, without a mask" in said and "probabilities differ by" in said
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "model.onnx", "run", "said.txt"]
    answers = []
    for model in (folder / "run", folder / "model.onnx"):
        status, out, err = run(capsys, "detect", model, folder / "0.png", folder / "1.png", "--json", "--threshold", 0.1)
        answers.append(json.loads(out)["images"])
        assert status == 0 and "drawn shapes" in err
    for ours, theirs in zip(*answers, strict=True):
        assert len(ours["detections"]) == len(theirs["detections"]) > 0
        for a, b in zip(ours["detections"], theirs["detections"]):
            assert a["label"] == b["label"] and abs(a["score"] - b["score"]) < 1e-4 and max(abs(x - y) for x, y in zip(a["box"], b["box"])) < 1e-2


def test_evaluate_reads_onnx(folder, capsys):
    status, out, err = run(capsys, "evaluate", folder / "model.onnx", "--draws", 0, "--json", "--quiet")
    scores = json.loads(out)
    assert status == 0 and scores["images"] == 500 and set(scores["per_class"]) == set(TINY["classes"]), err
    data = ShapesDataset("val", n=5)
    ours, theirs = (predict(model, data, 2, progress=False)[0] for model in (DETR.from_pretrained(folder / "run"), OnnxDETR(folder / "model.onnx")))
    assert all(torch.allclose(a["boxes"], b["boxes"], atol=1e-2) and torch.equal(a["labels"], b["labels"]) for a, b in zip(ours, theirs, strict=True))


def other_onnx(path: Path) -> Path:
    "A whole ONNX file of somebody else."
    import onnx
    from onnx import TensorProto, helper
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path


def test_files_that_are_none(folder, tmp_path, capsys):
    "One line that names the file, whatever it is, from detect and from evaluate."
    whole = (folder / "model.onnx").read_bytes()
    for name, data in (("empty.onnx", b""), ("text.onnx", b"hello"), ("cut.onnx", whole[:len(whole) // 2])): (tmp_path / name).write_bytes(data)
    other_onnx(tmp_path / "other.onnx")
    for name, at in (("flipped.onnx", len(whole) // 2), ("name.onnx", whole.rindex(b'"num_queries"') + 3)):
        (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1:])
    (tmp_path / "older.onnx").write_bytes(whole.replace(b"sha256", b"sha-no", 1))  # a file of an older version has no sum
    assert OnnxDETR(tmp_path / "older.onnx").config == OnnxDETR(whole).config
    for name, words in (("flipped.onnx", "is damaged: its bytes are not those that were exported"), ("name.onnx", "is damaged"), ("empty.onnx", "not a whole ONNX file"), ("text.onnx", "not a whole ONNX file"), ("cut.onnx", "not a whole ONNX file"),
                        ("other.onnx", "not one that nanodetr export wrote"), ("nowhere.onnx", "no such file")):
        for command in (("detect", tmp_path / name, folder / "0.png", "--json"), ("evaluate", tmp_path / name, "--data", "shapes")):
            status, out, err = run(capsys, *command)
            assert status == 2 and name in err and words in err and len(err.splitlines()) == 1 and not out, err


def test_names_and_flags_that_do_not_go(folder, tmp_path, capsys):
    kept = (folder / "model.onnx").read_bytes()
    model = folder / "run"
    for words, said in (((model, folder / "model.onnx"), "never written over"), ((model, tmp_path / "model.tflite"), ".onnx or .pt2"), ((model, tmp_path / "model"), ".onnx or .pt2"),
                        ((model, tmp_path / "model.pt2", "--dtype", "int8"), "float32 only"), ((folder / "model.onnx", tmp_path / "x.onnx"), "is an export already"),
                        ((tmp_path / "nowhere", tmp_path / "x.onnx"), "nowhere")):
        status, out, err = run(capsys, "export", *words)
        assert status == 2 and said in err and len(err.splitlines()) == 1 and not out, err
    status, _, err = run(capsys, "detect", folder / "model.onnx", folder / "0.png", "--json", "--device", "cuda:77")
    assert status == 2 and "cuda:77" in err
    with pytest.raises(CheckpointError, match="has nothing for cuda"): OnnxDETR(folder / "model.onnx", torch.device("cuda"))
    with pytest.raises(CheckpointError, match="never written over"): export_model(build(**TINY), folder / "model.onnx")
    with pytest.raises(CheckpointError, match="float64"): export_model(build(**TINY), tmp_path / "x.onnx", dtype="float64")
    assert (folder / "model.onnx").read_bytes() == kept and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_exports_are_no_checkpoints(name, tmp_path, capsys):
    "They are not trained further or converted, and a program, which might be a pickle, is not opened by detect."
    (tmp_path / name).write_bytes(b"PK")
    for words in (("convert", tmp_path / name, tmp_path / "out"), ("train", "--weights", tmp_path / name, "--out", tmp_path / "run"), *([("detect", tmp_path / name, tmp_path / name)] if name.endswith("pt2") else [])):
        status, _, err = run(capsys, *words)
        assert status == 2 and name in err and "is an export" in err and "Traceback" not in err, err


def test_without_the_extra(folder, tmp_path, capsys, monkeypatch):
    "What to install is said before the work; a program of torch.export needs none of it."
    for name, words in (("onnxscript", ("export", folder / "run", tmp_path / "x.onnx")), ("onnx", ("export", folder / "run", tmp_path / "x.onnx", "--dtype", "int8")),
                        ("onnxruntime", ("detect", folder / "model.onnx", folder / "0.png", "--json"))):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            status, out, err = run(capsys, *words)
        assert status == 2 and f"needs {name}, which is not installed" in err and 'pip install "nanodetr[onnx]"' in err and not out, err
    assert not list(tmp_path.iterdir())
