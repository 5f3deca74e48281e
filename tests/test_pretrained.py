"Checkpoints of the official code and of Hugging Face: the same outputs, losses, gradients and step; files, and how they fail."
import argparse
import copy
import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from nanodetr.checkpoints.adapt import convert
from nanodetr.checkpoints.config import DETRConfig
from nanodetr.checkpoints.layouts import (COCO_CLASSES, facts_in_hf, from_hf, from_official, hf_classes, hf_config, hf_processor, join_heads,
                                          read_checkpoint, to_hf, to_official)
from nanodetr.data import collate
from nanodetr.errors import CheckpointError, ConfigError, NanodetrError
from nanodetr.loss import SetCriterion
from nanodetr.matching import HungarianMatcher
from nanodetr.model import DETR, DETROutput
from nanodetr.training import TrainConfig, parameter_groups

# the notebook checkpoints/layouts proves the same, in each run of nbdev_test
twice = pytest.mark.skipif("NANODETR_SLOW" not in os.environ, reason="the notebook shows it, too: NANODETR_SLOW=1")
SIZES = ((64, 96), (80, 64), (40, 90))
SMALL = dict(backbone="resnet18", dim=32, heads=2, ffn_dim=48, encoder_layers=1, decoder_layers=2, num_queries=7,
             num_classes=4, dropout=0.0, seal_padding=False)


@pytest.fixture(scope="module")
def official():
    "The modules of the official package (detr==0.1.4 from PyPI, unpacked where NANODETR_PEERS says)."
    folder = os.environ.get("NANODETR_PEERS", "")
    if not (Path(folder) / "models" / "detr.py").is_file():
        pytest.skip("the official code is absent: pip install --no-deps --target DIR detr==0.1.4, NANODETR_PEERS=DIR")
    version, torchvision.__version__ = torchvision.__version__, "0.9.0"  # it compares versions as floats
    sys.path.insert(0, folder)
    try:
        package = importlib.import_module("models")
    finally:
        torchvision.__version__ = version
        sys.path.remove(folder)
    importlib.import_module("models.backbone").is_main_process = lambda: False  # no download
    return package


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("timm")
    package = pytest.importorskip("transformers")
    package.logging.set_verbosity_error()
    return package


@torch.no_grad()
def randomise(model):
    "Every vector random (norms, statistics, biases): zeros and ones hide mistakes."
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1 and name.endswith(("weight", "running_var")):
            tensor.uniform_(0.8, 1.2)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.1)
    return model.eval()


def official_detr(official, classes=91, **changes):
    settings = dict(position_embedding="sine", hidden_dim=256, lr_backbone=1e-5, masks=False, backbone="resnet50",
                    dilation=False, dropout=0.1, nheads=8, dim_feedforward=2048, enc_layers=6, dec_layers=6,
                    pre_norm=False) | changes
    args = argparse.Namespace(**settings)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = official.backbone.build_backbone(args)
    transformer = official.transformer.build_transformer(args)
    return randomise(official.detr.DETR(body, transformer, classes, num_queries=100, aux_loss=True)), args


def hf_detr(transformers, attention="sdpa", **changes):
    body = {} if "backbone_config" in changes else dict(use_timm_backbone=True, use_pretrained_backbone=False)
    config = transformers.DetrConfig(**body | dict(num_labels=91) | changes)
    config._attn_implementation = attention
    torch.manual_seed(0)
    return randomise(transformers.DetrForObjectDetection(config))


SMALL_HF = dict(backbone="resnet18", d_model=32, encoder_attention_heads=4, decoder_attention_heads=4, encoder_layers=1,
                decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48)


def batch():
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, *size, generator=generator) for size in SIZES]
    return pictures, *collate([(picture, {}) for picture in pictures])[:2]


@torch.no_grad()
def gap_official(theirs, ours):
    "Largest differences of logits and boxes over all layers, on a padded batch of three sizes."
    pictures, images, mask = batch()
    out, answer = ours(images, mask), theirs([(picture - ours.mean) / ours.std for picture in pictures])
    layers, others = [*out.aux, out], [*answer["aux_outputs"], answer]
    assert len(layers) == len(others) == ours.config.decoder_layers
    return (max((a.logits - b["pred_logits"]).abs().max().item() for a, b in zip(layers, others)),
            max((a.boxes - b["pred_boxes"]).abs().max().item() for a, b in zip(layers, others)))


@torch.no_grad()
def gap_hf(theirs, ours):
    _, images, mask = batch()
    normal = ((images - ours.mean) / ours.std).masked_fill(mask[:, None], 0.0)
    out, answer = ours(images, mask), theirs(pixel_values=normal, pixel_mask=(~mask).long())
    return (out.logits - answer.logits).abs().max().item(), (out.boxes - answer.pred_boxes).abs().max().item()


def agree(gap):
    return gap[0] <= 1e-4 and gap[1] <= 1e-5


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------------------------------- the official code

@pytest.fixture(scope="module")
def full_official(official, tmp_path_factory):
    "The full official DETR-R50 and the file of a training run: old file format, DataParallel names, settings, optimiser."
    model, args = official_detr(official)
    file = tmp_path_factory.mktemp("official") / "checkpoint.pth"
    state = {"module." + name: tensor for name, tensor in model.state_dict().items()}
    content = {"model": state, "args": args, "optimizer": {"state": {0: torch.zeros(1)}, "param_groups": [{"lr": 1e-4}]}, "epoch": 3}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return model, file


def test_full_r50_gives_the_official_outputs(full_official):
    theirs, file = full_official
    ours = DETR.from_pretrained(file)
    assert agree(gap_official(theirs, ours))
    assert ours.config == DETRConfig(seal_padding=False, classes=COCO_CLASSES) and not ours.training
    attention = ours.decoder.layers[2].cross_attn
    attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj
    assert not agree(gap_official(theirs, ours)), "a comparison that queries and keys swapped pass proves nothing"


@pytest.mark.parametrize("changes", [dict(backbone="resnet101"), dict(dilation=True), dict(pre_norm=True),
                                     dict(backbone="resnet34", enc_layers=0)], ids=["r101", "dc5", "prenorm", "r34"])
def test_other_official_models(official, changes, tmp_path):
    small = dict(hidden_dim=64, nheads=4, dim_feedforward=96, enc_layers=1, dec_layers=2)
    theirs, args = official_detr(official, 7, **small | changes)
    ours = DETR.from_pretrained(theirs.state_dict(), heads=4, dilation=args.dilation)
    assert agree(gap_official(theirs, ours))
    ours.save_pretrained(tmp_path, layout="official")
    theirs.load_state_dict(torch.load(tmp_path / "detr.pth", weights_only=True)["model"])  # strict: every name is there
    assert same_tensors(theirs.state_dict(), to_official(ours.state_dict(), ours.config))
    assert DETR.from_pretrained(tmp_path).config == ours.config
    if args.dilation or args.pre_norm:
        wrong = DETR(DETRConfig(**vars(ours.config) | {"dilation": False, "norm_first": False}))
        wrong.load_state_dict(ours.state_dict(), strict=False)
        assert not agree(gap_official(theirs, wrong.eval()))


@twice
@torch.no_grad()
def test_every_swap_of_two_modules_is_noticed(official):
    """Only queries and keys of the decoder's first self-attention may be swapped: its values are all the same, as the target is 0,
    so whom a query looks at there makes no difference."""
    theirs, _ = official_detr(official, 7, backbone="resnet18", hidden_dim=64, nheads=4, dim_feedforward=64, enc_layers=1, dec_layers=2)
    ours = DETR.from_pretrained(theirs.state_dict(), heads=4)
    pictures = [torch.rand(3, 40, 64), torch.rand(3, 48, 32)]
    images, mask, _ = collate([(picture, {}) for picture in pictures])
    answer = theirs([(picture - ours.mean) / ours.std for picture in pictures])
    state = copy.deepcopy(ours.state_dict())
    names = [name for name, module in ours.named_modules()
             if isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm)) and re.search(r"layers\.0\.|head", name)]
    passed = []
    for i, a in enumerate(names):
        for b in names[:i]:
            if state[a + ".weight"].shape == state[b + ".weight"].shape:
                swap = {f"{x}.{leaf}": state[f"{y}.{leaf}"] for x, y in ((a, b), (b, a)) for leaf in ("weight", "bias")}
                ours.load_state_dict(state | swap)
                out = ours(images, mask)
                same = [torch.allclose(out.logits, answer["pred_logits"], atol=1e-4), torch.allclose(out.boxes, answer["pred_boxes"], atol=1e-5)]
                passed += [(b, a)] * all(same)
    assert passed == [("decoder.layers.0.self_attn.q_proj", "decoder.layers.0.self_attn.k_proj")]


def criterion_case(size, generator, layers=6):
    outputs = [(torch.randn(size, 100, 92, generator=generator).requires_grad_(),
                (torch.rand(size, 100, 4, generator=generator) * 0.4 + 0.2).requires_grad_()) for _ in range(layers)]
    counts = [0, *torch.randint(1, 12, (size - 1,), generator=generator).tolist()]
    return outputs, [{"labels": torch.randint(91, (n,), generator=generator),
                      "boxes": torch.rand(n, 4, generator=generator) * 0.3 + 0.3} for n in counts]


def official_criterion(official, classes=91):
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    weights |= {f"{name}_{i}": w for name, w in weights.items() for i in range(5)}
    matcher = official.matcher.HungarianMatcher(1, 5, 2)
    return official.detr.SetCriterion(classes, matcher, weights, 0.1, ["labels", "boxes", "cardinality"])


@pytest.mark.parametrize("size", [1, 3, 16])
def test_criterion(official, size):
    "Every named loss of every layer, the matched indices, the gradients; one image has no object (size 1: none at all)."
    outputs, targets = criterion_case(size, torch.Generator().manual_seed(size))
    theirs, ours = official_criterion(official), SetCriterion(91)
    named = theirs({"pred_logits": outputs[-1][0], "pred_boxes": outputs[-1][1],
                    "aux_outputs": [{"pred_logits": l, "pred_boxes": b} for l, b in outputs[:-1]]}, targets)
    mine = ours(DETROutput(*outputs[-1], [DETROutput(*layer) for layer in outputs[:-1]]), targets)
    for a, b in (("class", "ce"), ("l1", "bbox"), ("giou", "giou")):
        for end in ("", "_0", "_1", "_2", "_3", "_4"):
            assert abs(mine[f"loss_{a}{end}"].item() - named[f"loss_{b}{end}"].item()) <= 1e-5
    for logits, boxes in outputs:
        theirs_matched = theirs.matcher({"pred_logits": logits, "pred_boxes": boxes}, targets)
        for a, b in zip(HungarianMatcher()(logits, boxes, targets), theirs_matched, strict=True):
            assert sorted(zip(*(i.tolist() for i in a))) == sorted(zip(*(i.tolist() for i in b)))
    tensors = [x for layer in outputs for x in layer]
    totals = ours.total(mine), sum(named[name] * w for name, w in theirs.weight_dict.items())
    grads = [torch.autograd.grad(total, tensors, retain_graph=True) for total in totals]
    assert max((a - b).abs().max().item() for a, b in zip(*grads)) <= 1e-6
    wrong = SetCriterion(91, no_object_weight=0.11)
    total = wrong.total(wrong(DETROutput(*outputs[-1], [DETROutput(*layer) for layer in outputs[:-1]]), targets))
    if size > 1:
        assert max((a - b).abs().max().item() for a, b in zip(torch.autograd.grad(total, tensors), grads[1])) > 1e-6


def test_one_optimiser_step(official):
    """AdamW with the paper's settings, dropout 0, from the same weights on the same padded batch: all parameters to 1e-5.

    In double precision: Adam divides by a gradient's own size, so rounding alone moves a parameter whose gradient is tiny.
    """
    theirs, _ = official_detr(official, 20, dropout=0.0, backbone="resnet18", enc_layers=2, dec_layers=6, dim_feedforward=512)
    theirs.double()
    ours = DETR.from_pretrained(theirs.state_dict(), dropout=0.0).double()
    before = copy.deepcopy(ours.state_dict())
    pictures, images, mask = batch()
    pictures, images = [picture.double() for picture in pictures], images.double()
    generator = torch.Generator().manual_seed(0)
    targets = [{"labels": torch.randint(20, (n,), generator=generator), "boxes": (torch.rand(n, 4, generator=generator) * 0.3 + 0.3).double()} for n in (2, 0, 5)]
    criterion = official_criterion(official, 20).double()
    theirs.train(), ours.train()
    groups = [{"params": [p for n, p in theirs.named_parameters() if "backbone" not in n and p.requires_grad]},
              {"params": [p for n, p in theirs.named_parameters() if "backbone" in n and p.requires_grad], "lr": 1e-5}]
    losses = criterion(theirs([(picture - ours.mean) / ours.std for picture in pictures]), targets)
    steps = [(theirs, torch.optim.AdamW(groups, lr=1e-4, weight_decay=1e-4), sum(losses[n] * w for n, w in criterion.weight_dict.items()))]
    mine = SetCriterion(20).double()
    optimiser = torch.optim.AdamW(parameter_groups(ours, TrainConfig.preset("paper")), weight_decay=1e-4)
    steps.append((ours, optimiser, mine.total(mine(ours(images, mask), targets))))
    for model, optimizer, loss in steps:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    after, own = from_official(theirs.state_dict()), ours.state_dict()
    assert max((after[name] - own[name]).abs().max().item() for name in own) <= 1e-5
    moved = {name: (own[name] - before[name]).abs().max().item() for name in own}
    frozen = [name for name, p in ours.named_parameters() if not p.requires_grad]
    assert frozen and all(moved[name] == 0 for name in frozen)
    assert 9e-5 < moved["class_head.weight"] < 1.2e-4 and 5e-6 < moved["backbone.body.layer4.0.conv1.weight"] < 1.2e-5


# ---------------------------------------------------------------------------------------------- Hugging Face

@twice
def test_full_hugging_face_r50(transformers):
    "timm's ResNet-50, 91 classes, from memory, with both ways of computing attention."
    theirs = hf_detr(transformers, "eager")
    ours = DETR.from_pretrained(theirs.state_dict(), config=theirs.config)
    assert agree(gap_hf(theirs, ours))
    theirs.set_attn_implementation("sdpa")
    assert theirs.config._attn_implementation == "sdpa" and agree(gap_hf(theirs, ours))
    assert same_tensors(to_hf(ours.state_dict(), ours.config, memory=True), dict(theirs.state_dict()))
    _, images, mask = batch()
    with torch.no_grad():
        inverted = theirs(pixel_values=(images - ours.mean) / ours.std, pixel_mask=mask.long()).logits
        assert (inverted - ours(images, mask).logits).abs().max() > 1e-2


def resnet_config(transformers, **changes):
    return transformers.ResNetConfig(out_features=["stage4"], **changes)


@pytest.mark.parametrize("kind", ["dc5", "basic", "version 1"])
def test_other_hugging_face_models(transformers, kind, tmp_path):
    "DC5, and transformers' own ResNet, through its files; version 1 has its strides elsewhere."
    changes = {"dc5": lambda: dict(backbone="resnet50", dilation=True),
               "basic": lambda: dict(use_timm_backbone=False, attention="eager", backbone_config=resnet_config(
                   transformers, depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic")),
               "version 1": lambda: dict(use_timm_backbone=False, attention="eager", backbone_config=resnet_config(
                   transformers, downsample_in_bottleneck=True))}[kind]()
    theirs = hf_detr(transformers, **{k: v for k, v in SMALL_HF.items() if k != "backbone"} | changes)
    theirs.save_pretrained(tmp_path)
    ours = DETR.from_pretrained(tmp_path)
    assert agree(gap_hf(theirs, ours)) and ours.config.heads == 4
    assert (ours.config.dilation, ours.config.stride_first) == (kind == "dc5", kind == "version 1")
    if kind != "basic":
        wrong = DETR(DETRConfig(**vars(ours.config) | {"dilation": False, "stride_first": False}))
        wrong.load_state_dict(ours.state_dict())
        assert not agree(gap_hf(theirs, wrong.eval()))


def test_files_both_ways(transformers, tmp_path):
    "What transformers writes we read, what we write it reads, with class names and picture sizes; bit for bit."
    names = {0: "N/A", 1: "cat", 2: "dog"}
    theirs = hf_detr(transformers, **SMALL_HF, num_labels=3, id2label=names, label2id={v: k for k, v in names.items()})
    theirs.save_pretrained(tmp_path / "theirs")
    ours = DETR.from_pretrained(tmp_path / "theirs", image_size=320, max_size=480, image_std=(0.5, 0.5, 0.5))
    assert ours.config.classes == ["N/A", "cat", "dog"] and agree(gap_hf(theirs, ours))
    ours.save_pretrained(tmp_path / "ours", layout="hf")
    back, info = transformers.DetrForObjectDetection.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and back.config.id2label == names
    assert agree(gap_hf(back.eval(), ours))
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert same_tensors(first, second)
    processor = transformers.DetrImageProcessor.from_pretrained(tmp_path / "ours")
    assert processor.size["shortest_edge"] == 320 and processor.size["longest_edge"] == 480
    assert list(processor.image_std) == [0.5, 0.5, 0.5] and list(processor.image_mean) == list(ours.config.image_mean)
    again = DETR.from_pretrained(tmp_path / "ours" / "model.safetensors")
    assert again.config == ours.config and same_tensors(again.state_dict(), ours.state_dict())


@pytest.mark.parametrize("size, shape", [({"height": 96, "width": 64}, (96, 64)), ({"height": 64, "width": 64}, (64, 64)), ({"shortest_edge": 64, "longest_edge": 80}, (40, 80))])
def test_pictures_as_their_processor_makes_them(size, shape, transformers, tmp_path):
    "The same size for the network, nearly the same pixels (theirs are rounded to bytes), the same boxes; and the files say the same again."
    theirs = hf_detr(transformers, **SMALL_HF)
    theirs.save_pretrained(tmp_path / "theirs")
    transformers.DetrImageProcessor(size=size).save_pretrained(tmp_path / "theirs")
    ours, processor = DETR.from_pretrained(tmp_path / "theirs"), transformers.DetrImageProcessor.from_pretrained(tmp_path / "theirs")
    coarse = torch.rand(3, 6, 11, generator=torch.Generator().manual_seed(0))
    picture = (torch.nn.functional.interpolate(coarse[None], (75, 150), mode="bicubic")[0].clamp(0, 1) * 255).round().byte()
    inputs = processor(picture, return_tensors="pt")
    resized = (ours.resize(picture / 255) - ours.mean) / ours.std
    assert resized.shape == inputs["pixel_values"].shape[1:] == (3, *shape)
    assert (resized - inputs["pixel_values"][0]).abs().max() < 1.5 / 255 / 0.224
    with torch.no_grad(): found = processor.post_process_object_detection(theirs(**inputs), threshold=0.0, target_sizes=[(75, 150)])[0]
    boxes, order = ours.detect([picture / 255], -1)[0]["boxes"], found["scores"].argsort(descending=True, stable=True)
    assert len(boxes) == len(order) and (boxes - found["boxes"][order]).abs().max() < 0.5
    ours.save_pretrained(tmp_path / "ours", layout="hf")
    assert DETR.from_pretrained(tmp_path / "ours").config == ours.config
    again = transformers.DetrImageProcessor.from_pretrained(tmp_path / "ours")(picture, return_tensors="pt")
    assert torch.equal(again["pixel_values"], inputs["pixel_values"])


def test_auxiliary_loss_changes_their_network(transformers, tmp_path):
    "With it on, transformers computes something else; such a checkpoint is refused."
    theirs = hf_detr(transformers, **SMALL_HF)
    ours = DETR.from_pretrained(theirs.state_dict(), config=theirs.config.to_dict())
    assert agree(gap_hf(theirs, ours))
    theirs.config.auxiliary_loss = True
    assert not agree(gap_hf(theirs, ours))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="auxiliary_loss is True"):
        DETR.from_pretrained(tmp_path)


# ---------------------------------------------------------------------------------------------- files of any origin

@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return randomise(DETR(DETRConfig(**SMALL, classes=list("abcd"))))


@pytest.fixture(scope="module")
def small_official(small):
    return to_official(small.state_dict(), small.config)


@pytest.mark.parametrize("path", [("official", "hf", "nanodetr"), ("hf", "official", "hf", "nanodetr")])
def test_round_trips_are_bit_identical(small, tmp_path, path):
    small.save_pretrained(tmp_path / "start")
    source = tmp_path / "start"
    for i, layout in enumerate(path):
        config = convert(source, tmp_path / str(i), layout)
        source = tmp_path / str(i)
        assert config == small.config
    assert same_tensors(DETR.from_pretrained(source).state_dict(), small.state_dict())


def test_headwise_attention_is_joined(small):
    "A model of the abstraction-heavy design leaves as one of the matrix-heavy design, with the same outputs."
    heads = randomise(DETR(DETRConfig(**SMALL, attention="abstraction")))
    matrix = DETR.from_pretrained(to_official(heads.state_dict(), heads.config), heads=2)
    assert same_tensors(join_heads(heads.state_dict()), matrix.state_dict())
    _, images, mask = batch()
    with torch.no_grad():
        assert torch.allclose(heads(images, mask).logits, matrix(images, mask).logits, atol=1e-5)


def test_memory_names_of_transformers(small):
    there = to_hf(small.state_dict(), small.config, memory=True)
    assert any(".o_proj." in name for name in there) and not any("conv_encoder" in name or ".out_proj." in name for name in there)
    assert same_tensors(from_hf(there), small.state_dict())


def test_where_dilation_is_told(small_official, tmp_path):
    "Nothing in the weights tells it: the keyword, the settings in the file or the file's name must."
    state = {name: tensor for name, tensor in small_official.items()}
    tell = lambda source, **known: read_checkpoint(source, heads=2, **known)[0].dilation
    for name in ("detr-r50-dc5-f0fb7ef5.pth", "detr-r50-e632da11.pth"):
        torch.save({"model": state}, tmp_path / name)
        assert tell(tmp_path / name) is ("dc5" in name)
    torch.save({"model": state, "args": argparse.Namespace(dilation=True, nheads=4)}, tmp_path / "run.pth")
    config = read_checkpoint(tmp_path / "run.pth")[0]
    assert config.dilation and config.heads == 4
    assert tell(state) is False and tell(state, dilation=True) is True and tell(tmp_path / "run.pth", dilation=False) is False


def test_mask_head_is_left_out(small_official, capsys):
    state = {"detr." + name: tensor for name, tensor in small_official.items()}
    state |= {"bbox_attention.q_linear.weight": torch.zeros(2), "mask_head.lay1.weight": torch.zeros(2)}
    config, tensors, layout = read_checkpoint(state, heads=2)
    assert layout == "official" and config.num_queries == 7 and not any("mask" in name for name in tensors)
    assert capsys.readouterr().out.count("\n") == 1


def refused(match, source, error=CheckpointError, **known):
    with pytest.raises(error, match=match) as caught:
        DETR.from_pretrained(source, **known)
    assert "\n" not in str(caught.value)


class Trap:
    "Leaves a mark when it is unpickled."
    def __init__(self, path): self.path = path
    def __reduce__(self): return (Path.touch, (self.path,))


def test_no_code_is_run(small_official, tmp_path):
    torch.save({"model": small_official, "args": Trap(tmp_path / "mark")}, tmp_path / "bad.pth")
    refused("could run code", tmp_path / "bad.pth")
    assert not (tmp_path / "mark").exists()
    torch.save({"model": small_official, "args": argparse.Namespace(output_dir=tmp_path)}, tmp_path / "path.pth")
    refused("could run code", tmp_path / "path.pth")


def test_broken_files(small_official, small, tmp_path):
    file = tmp_path / "detr.pth"
    torch.save({"model": small_official}, file)
    assert DETR.from_pretrained(tmp_path, heads=2).config.num_queries == 7          # the one .pth of a folder
    (tmp_path / "cut.pth").write_bytes(file.read_bytes()[:5000])
    refused("cut.pth: no whole checkpoint", tmp_path / "cut.pth")
    (tmp_path / "text.pth").write_text("hello")
    refused("text.pth: no whole checkpoint", tmp_path / "text.pth")
    refused("3 .pth files", tmp_path)
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    refused("no names and tensors", tmp_path / "epoch.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    refused("belong to no DETR", tmp_path / "resnet.pth")
    torch.save({name: tensor for name, tensor in small_official.items() if "norm3" not in name}, tmp_path / "holes.pth")
    refused("norm3.weight is missing", tmp_path / "holes.pth")
    torch.save({**small_official, "transformer.decoder.ref_point_head.weight": torch.zeros(1)}, tmp_path / "more.pth")
    refused("ref_point_head.*no plain DETR", tmp_path / "more.pth")
    torch.save(small.state_dict(), tmp_path / "own.pth")
    refused("do not tell the configuration", tmp_path / "own.pth")
    refused("num_queries is 7 in the weights, not 5", file, num_queries=5)
    refused("did you mean 'dilation'", file, error=ConfigError, dilatation=True)


def test_hugging_face_wishes_that_cannot_be_met(small, tmp_path):
    small.save_pretrained(tmp_path, layout="hf")
    whole = json.loads((tmp_path / "config.json").read_text())
    for changes, match in ((dict(model_type="conditional_detr"), "model_type"), (dict(activation_function="gelu"), "activation_function"),
                           (dict(position_embedding_type="learned"), "position_embedding_type"),
                           (dict(decoder_attention_heads=8), "attention_heads")):
        (tmp_path / "config.json").write_text(json.dumps(whole | changes))
        refused(match, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "detr", ')
    refused("config.json: not JSON", tmp_path)


ODD = (None, "x", "1", [1], [[1]], {}, {"a": 1}, -1, 0, 1e400, True)


def test_odd_values_in_hugging_face_files(small, tmp_path):
    "Each field with each odd value: read, or refused in one line; and what could not be calculated with is named with its file."
    said = hf_config(small.config), hf_processor(small.config)
    more = ("backbone_config.output_stride", "backbone_config.downsample_in_bottleneck", "id2label.0"), ("max_size", "size.shortest_edge", "size.longest_edge")
    for k in (0, 1):
        for name, value in product((*said[k], *more[k]), ODD):
            above, _, below = name.partition(".")
            inner = said[k].get(above) if isinstance(said[k].get(above), dict) else {}
            files = [*said]
            files[k] = said[k] | {above: inner | {below: value} if below else value}
            try: DETRConfig.from_dict({"num_classes": 4, **facts_in_hf(*files, 4, lambda note: None)})
            except NanodetrError as error: assert len(str(error).splitlines()) == 1, (name, value)
    small.save_pretrained(tmp_path, layout="hf")
    for name, changes, match in (("config", {"backbone_config": "x"}, "backbone_config is 'x', but a JSON object"), ("config", {"encoder_attention_heads": [8]}, "encoder_attention_heads"),
                                 ("preprocessor_config", {"rescale_factor": 0}, "rescale_factor is 0, but a number above 0"),
                                 ("preprocessor_config", {"image_std": "x", "rescale_factor": 1}, "image_std is 'x', but a list of numbers"),
                                 ("processor_config", {"image_processor": 5}, "image_processor is 5, but a JSON object")):
        path = tmp_path / f"{name}.json"
        before = path.read_text() if path.exists() else "{}"
        path.write_text(json.dumps(json.loads(before) | changes))
        if name == "processor_config": (tmp_path / "preprocessor_config.json").unlink()
        refused(f"{name}.json: {match}", tmp_path)
        path.write_text(before)


def test_own_folders_keep_their_messages(small, tmp_path):
    small.save_pretrained(tmp_path / "own")
    assert read_checkpoint(tmp_path / "own")[2] == "nanodetr"
    refused("says all about this model: leave out dilation", tmp_path / "own", error=ConfigError, dilation=True)
    (tmp_path / "own" / "config.json").unlink()
    refused("config.json: no such file", tmp_path / "own")
    refused("no such file: give the folder", tmp_path / "nowhere")
    refused("no such file: give the folder", str(tmp_path / "nowhere" / "detr.pth"))


@pytest.mark.parametrize("changes", [dict(backbone="conv"), dict(positions="learned"), dict(query_start="query"), dict(temperature=20.0),
                                     dict(stride_first=True, backbone="resnet50"), dict(norm_first=True)], ids=lambda c: next(iter(c)))
def test_what_a_layout_cannot_say_is_refused(changes, tmp_path):
    model = DETR(DETRConfig(**SMALL | changes))
    field = next(iter(changes))
    for layout in ("official", "hf"):
        if field == "norm_first" and layout == "official":
            continue
        with pytest.raises(CheckpointError, match=f"{field} is .*layout '{layout}' cannot say"):
            model.save_pretrained(tmp_path / layout, layout=layout)
        assert not (tmp_path / layout).exists()
    with pytest.raises(CheckpointError, match="unknown layout"):
        model.save_pretrained(tmp_path, layout="onnx")


def test_sealed_models_say_that_padding_will_differ(tmp_path, capsys):
    model = DETR(DETRConfig(**SMALL | {"seal_padding": True}))
    model.save_pretrained(tmp_path, layout="official")
    assert "padding" in capsys.readouterr().out
    assert not DETR.from_pretrained(tmp_path).config.seal_padding
    assert DETR.from_pretrained(tmp_path, seal_padding=True).config == model.config


# ---------------------------------------------------------------------------------------------- the hub

def test_names_on_the_hub(small, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, allow_patterns[-1]))
        if "pytorch_model.bin" in allow_patterns:
            torch.save(to_hf(small.state_dict(), small.config), tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    small.save_pretrained(tmp_path, layout="hf")
    (tmp_path / "model.safetensors").unlink()                                       # an old model: only a .bin
    model = DETR.from_pretrained("somebody/detr-tiny")
    assert asked == [("somebody/detr-tiny", "model.safetensors"), ("somebody/detr-tiny", "pytorch_model.bin")]
    assert model.config == small.config and same_tensors(model.state_dict(), small.state_dict())


def test_hub_without_client_or_network(monkeypatch):
    pytest.importorskip("huggingface_hub")
    refused("did not give it", "nanodetr-tests-no-such-owner/no-such-model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(re.escape('pip install "nanodetr[hub]"'), "facebook/detr-resnet-50")


def test_module_needs_no_peers():
    "nanodetr.checkpoints imports torch, safetensors and this library; transformers, timm and the hub's client stay out."
    code = """
import sys
for name in ("transformers", "timm", "huggingface_hub", "matplotlib", "IPython"): sys.modules[name] = None
import nanodetr.checkpoints.layouts
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_coco_names():
    from torchvision.models._meta import _COCO_CATEGORIES
    assert COCO_CLASSES[1:] == _COCO_CATEGORIES[1:] and COCO_CLASSES.count("N/A") == 11 and len(COCO_CLASSES) == 91
    assert hf_classes({"id2label": {str(i): n for i, n in enumerate(COCO_CLASSES)}}) == COCO_CLASSES
