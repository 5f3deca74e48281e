"""The cures of notebook 15: each trains, saves, loads, detects and exports; blocks agree with transformers; the plain DETR knows nothing of them."""
import contextlib
import dataclasses
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from nanodetr import beyond
from nanodetr.attention import HeadwiseAttention, MultiHeadAttention, copy_attention
from nanodetr.checkpoints.config import CURES, ClassScores
from nanodetr.commands.train import take_start
from nanodetr.data import ShapesDataset, collate
from nanodetr.decoder import DecoderBlock
from nanodetr.errors import CheckpointError, ConfigError
from nanodetr.loss import SetCriterion
from nanodetr.matching import HungarianMatcher
from nanodetr.model import DETR, DETRConfig, DETROutput, postprocess
from nanodetr.training import TrainConfig, Trainer, accumulate_gradients

SMALL = dict(dim=16, heads=2, ffn_dim=16, encoder_layers=1, decoder_layers=2, num_queries=5, conv_widths=(8, 8, 8))
WAYS = {
    "conditional": dict(cross_attention="conditional"), "anchors": dict(queries="anchors"), "dab": dict(queries="anchors", cross_attention="conditional"),
    "denoising": dict(denoising=2), "anchors, denoising": dict(queries="anchors", denoising=2), "groups": dict(groups=3), "sigmoid": dict(scores="sigmoid"),
    "quality": dict(scores="quality"), "deformable": dict(cross_attention="deformable"), "levels": dict(cross_attention="deformable", levels=3),
    "proposals": dict(queries="proposals"), "conditional, denoising": dict(cross_attention="conditional", denoising=2, query_start="zero"),
    "all": dict(cross_attention="conditional", queries="proposals", denoising=2, groups=2, scores="quality"),
    "all, deformable": dict(cross_attention="deformable", levels=2, queries="proposals", denoising=2, groups=2, scores="sigmoid", norm_first=False),
    "headwise": dict(attention="abstraction", queries="anchors", denoising=1),
}


def small(**cures) -> DETR:
    torch.manual_seed(0)
    return DETR(DETRConfig.preset("nano", **{**SMALL, **cures}))


@pytest.fixture(scope="module")
def batch():
    data = ShapesDataset("train", n=4)
    return collate([data[i] for i in range(4)])


# --- the plain path

def test_a_plain_configuration_makes_a_plain_detr():
    assert type(small()) is DETR and DETRConfig().plain and not DETRConfig(denoising=1).plain
    assert type(small(denoising=1)) is beyond.BeyondDETR and DETRConfig(groups=2, scores="sigmoid").cures() == {"scores": "sigmoid", "groups": 2}
    assert all(DETRConfig.preset(name).plain for name in ("nano", "photos", "voc", "paper"))
    for name, kind in (("nano", "deformable"), ("photos", "conditional")): assert DETRConfig.preset(f"{name}-fast").cures() == {"cross_attention": kind, "queries": "proposals"}
    assert set(CURES) <= {f.name for f in dataclasses.fields(DETRConfig)}


def test_plain_outputs_and_gradients_follow_the_old_formulas(batch):
    "What the seams replaced, written out."
    model, (images, _, targets) = small(), batch
    out = model(images)
    hidden = []
    handle = model.decoder.register_forward_hook(lambda module, inputs, outputs: hidden.append(outputs[0]))
    assert torch.equal(model(images).boxes, out.boxes)
    handle.remove()
    assert torch.equal(model.class_head(hidden[0])[-1], out.logits) and torch.equal(model.box_head(hidden[0]).sigmoid()[-1], out.boxes)
    scores, labels = out.logits.softmax(-1)[..., :-1].max(-1)
    found = postprocess(out, torch.tensor([[64, 64]] * 4))
    assert all(torch.equal(f["scores"], s) and torch.equal(f["labels"], l) for f, s, l in zip(found, scores, labels))
    criterion = SetCriterion(4)
    losses, wanted = criterion(out, targets), torch.full((4, 5), 4)
    for row, (queries, objects), t in zip(wanted, HungarianMatcher()(out.logits, out.boxes, targets), targets): row[queries] = t["labels"][objects]
    assert torch.allclose(losses["loss_class"], F.cross_entropy(out.logits.flatten(0, 1), wanted.flatten(), torch.tensor([1., 1, 1, 1, 0.1])), atol=1e-6)


@pytest.mark.parametrize("design", [MultiHeadAttention, HeadwiseAttention])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_masks_are_pytorchs(design, per_image, padded):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    ours = copy_attention(design(16, 2), theirs).eval()
    x, y = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    mask = torch.rand(3, 5, 7) > 0.6 if per_image else torch.rand(5, 7) > 0.6
    mask[..., 0] = False
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = True
    wanted, weights = theirs(x, y, y, key_padding_mask=padding if padded else None, attn_mask=mask.repeat_interleave(2, 0) if per_image else mask, average_attn_weights=False)
    for need in (True, False):
        answer, seen = ours(x, y, y, padding if padded else None, need, mask)
        assert torch.allclose(answer, wanted, atol=1e-5)
        if need: assert torch.allclose(seen, weights, atol=1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_mask_of_a_block_keeps_queries_apart(norm_first):
    torch.manual_seed(0)
    block = DecoderBlock(16, 2, 16, 0.0, norm_first).eval()
    target, memory, pos, cells = torch.randn(2, 5, 16), torch.randn(2, 6, 16), torch.randn(2, 5, 16), torch.randn(2, 6, 16)
    both = block(target, memory, pos, cells, self_mask=beyond.apart([3, 2]))[0]
    first = block(target[:, :3], memory, pos[:, :3], cells)[0]
    assert torch.allclose(both[:, :3], first, atol=1e-5)
    assert not torch.allclose(block(target, memory, pos, cells)[0][:, :3], first, atol=1e-3)


def test_what_logits_mean():
    softmax, sigmoid = ClassScores(), ClassScores("quality")
    logits = torch.tensor([[2.0, 0, -1], [-1, -2, 3]])
    assert torch.equal(softmax.probability(logits), logits.softmax(-1)[:, :2]) and softmax.said(logits).tolist() == [0, 2]
    assert torch.equal(sigmoid.probability(logits), logits.sigmoid()) and sigmoid.said(torch.tensor([[2.0, 1], [-1, -2]])).tolist() == [0, 2]
    assert sigmoid.with_no_object(torch.zeros(1, 3)).tolist() == [[0.5] * 4] and torch.equal(softmax.with_no_object(logits), logits.softmax(-1))


# --- every cure, and all together

@pytest.mark.parametrize("way", WAYS)
def test_trains_saves_loads_and_detects(way, batch, tmp_path):
    model, (images, _, targets) = small(**WAYS[way]), batch
    trainer = Trainer(model, TrainConfig(device="cpu", lr=3e-3, clip=1.0), 40)
    first = trainer.train_step([batch])
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []  # several processes would wait for it
    for _ in range(7): last = trainer.train_step([batch])
    assert last["loss"] < first["loss"] and all(v == v for v in last.values())
    model.eval()
    mask = torch.zeros(4, 64, 64, dtype=torch.bool)
    mask[0, :, 40:] = mask[0, 48:] = True
    with torch.no_grad(): out, alone, full = model(images, mask), model(images[:1, :, :48, :40]), model(images[1:])
    assert torch.allclose(out.boxes[:1], alone.boxes, atol=1e-4) and torch.allclose(out.logits[1:], full.logits, atol=1e-4)  # padding and batch-mates change nothing
    assert out.boxes.shape == (4, 5, 4) and out.logits.shape[-1] == 4 + model.scores.no_object and len(out.aux) == 1 and out.extra == []
    model.save_pretrained(tmp_path)
    again = DETR.from_pretrained(tmp_path)
    assert type(again) is beyond.BeyondDETR and again.config == model.config and torch.allclose(again(images).boxes, model(images).boxes, atol=1e-5)
    found = again.detect([images[0], images[1][:, :50]], threshold=0.0)
    assert all(len(f["scores"]) == 5 and (f["scores"] <= 1).all() for f in found)


def test_trains_on_kept_features(batch):
    from nanodetr.runs.features import OnFeatures

    model = OnFeatures(small(**WAYS["all"]))
    features, _ = model.whole.backbone(batch[0], None)
    losses = Trainer(model, TrainConfig(device="cpu"), 10).train_step([(features.detach(), None, batch[2])])
    assert {"loss_class_dn", "loss_class_enc", "loss_giou_group1"} <= losses.keys()


def test_trains_in_half_precision(batch):
    model = small(**WAYS["all, deformable"])
    model.peek(batch[2])
    with torch.autocast("cpu", torch.bfloat16): out = model.train()(batch[0])
    assert torch.isfinite(model.criterion(4).total(model.criterion(4)(out, batch[2])))


@pytest.mark.parametrize("way", ["all", "anchors, denoising", "groups"])
def test_adapts_to_other_classes_and_more_queries(way, batch):
    from nanodetr.checkpoints.adapt import adapt

    model = small(**WAYS[way]).eval()
    new = adapt(model, ["a", "b"], 7, say=lambda line: None)
    assert type(new) is beyond.BeyondDETR and new.config.num_queries == 7 and new(batch[0]).boxes.shape == (4, 7, 4)
    per_group = lambda m: m.query_embed.weight.unflatten(0, (m.config.groups, -1))
    assert torch.equal(per_group(new)[:, :5], per_group(model)) and torch.equal(new.decoder.norm.weight, model.decoder.norm.weight)
    same = adapt(small(classes=["a", "b", "c", "d"], **WAYS[way]), ["a", "b", "c", "d"], say=lambda line: None).eval()
    assert torch.allclose(same(batch[0]).boxes, model(batch[0]).boxes, atol=1e-5)


@pytest.mark.parametrize("layout", ["hf", "official"])
def test_other_programs_have_no_words_for_it(layout, tmp_path):
    with pytest.raises(CheckpointError, match="queries.*keep the layout nanodetr"): small(queries="anchors").save_pretrained(tmp_path, layout)


def test_a_value_that_is_no_cure_is_refused():
    with pytest.raises(ConfigError, match="queries is 'anchor', which is unknown: choose one of learned, anchors, proposals"): DETRConfig(queries="anchor")
    with pytest.raises(ConfigError, match="levels is 2, but only deformable"): DETRConfig(levels=2)
    with pytest.raises(ConfigError, match="groups is 0"): DETRConfig(groups=0)


def test_the_parts_of_a_batch_add_up(batch):
    "As in notebook 11: gradients of two micro-batches are those of the whole, with groups and quality too."
    images, _, targets = batch
    found = []
    for parts in ([(images, None, targets)], [(images[:1], None, targets[:1]), (images[1:], None, targets[1:])]):
        model = small(groups=2, scores="quality", queries="proposals").train()
        losses = accumulate_gradients(model, model.criterion(4), parts)
        found.append((losses["loss"], [p.grad for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-4) and all(torch.allclose(a, b, atol=2e-4) for a, b in zip(found[0][1], found[1][1]))


# --- denoising and groups

def test_with_the_mask_nothing_leaks(batch):
    "The answers of the queries that will be used later do not depend on the truth; without the mask they do."
    images, _, targets = batch
    others = [{"labels": t["labels"].flip(0), "boxes": 1 - t["boxes"]} for t in targets]
    for keep_apart in (True, False):
        model = small(queries="anchors", denoising=2).train()
        model.keep_apart = keep_apart
        answers = []
        for shown in (targets, others):
            model.peek(shown)
            answers.append(model(images))
        assert [g.name for g in answers[0].extra] == ["dn"]
        assert torch.allclose(answers[0].logits, answers[1].logits, atol=1e-5) == keep_apart
    model.keep_apart = True
    model.peek(targets)
    model.eval()
    assert model(images).extra == []
    model.train()
    assert model(images).extra == []  # what was shown is used once, and never for another batch


def test_noised_objects_are_near_theirs(batch):
    targets = [*batch[2][:2], {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}]
    torch.manual_seed(0)
    labels, boxes, wanted = beyond.noised_objects(targets, 5, 4)
    most = max(len(t["labels"]) for t in targets)
    assert labels.shape == (3, 5, most) and boxes.shape == (3, 5, most, 4) and boxes.min() > 0 and boxes.max() < 1 and len(wanted[2]["labels"]) == 0
    for b, t in enumerate(targets[:2]):
        w = wanted[b]
        assert torch.equal(w["labels"], t["labels"].repeat(5)) and w["queries"].unique().numel() == 5 * len(t["labels"])
        mine = boxes[b].flatten(0, 1)[w["queries"]]
        inside = ((mine - w["boxes"]).abs() <= 0.4 * w["boxes"][:, [2, 3, 2, 3]] * torch.tensor([0.5, 0.5, 1, 1]) + 1e-3)
        assert inside.float().mean() > 0.97  # but for what the edge of the picture cuts
    assert torch.equal(beyond.apart([2, 1, 2]), ~torch.block_diag(*(torch.ones(n, n) for n in (2, 1, 2))).bool())


def test_the_first_group_is_the_model(batch):
    images, _, targets = batch
    model = small(groups=3)
    model.peek(targets)
    trained = model.train()(images)
    assert [g.name for g in trained.extra] == ["group1", "group2"]
    assert torch.allclose(trained.boxes, model.eval()(images).boxes, atol=1e-5)


def test_an_image_without_objects_trains(batch):
    images, _, _ = batch
    empty = [{"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}] * 4
    for way in ("all", "denoising", "sigmoid"):
        losses = Trainer(small(**WAYS[way]), TrainConfig(device="cpu"), 5).train_step([(images, None, empty)])
        assert losses["loss"] > 0 and losses["loss_l1"] == 0


# --- the same as transformers

@pytest.mark.parametrize("first", [True, False])
def test_conditional_attention_is_transformers(first):
    module = pytest.importorskip("transformers.models.conditional_detr.modeling_conditional_detr")
    torch.manual_seed(0)
    theirs, ours = module.ConditionalDetrDecoderCrossAttention(SimpleNamespace(_attn_implementation="eager"), 16, 2).eval(), beyond.ConditionalAttention(16, 2).eval()
    names = {"q_content": "q_content_proj", "k_content": "k_content_proj", "v_proj": "v_proj", "out_proj": "o_proj", "q_pos": "q_pos_proj", "k_pos": "k_pos_proj", "q_code": "q_pos_sine_proj"}
    for mine, name in names.items(): getattr(ours, mine).load_state_dict(getattr(theirs, name).state_dict())
    target, memory, codes, pos, cells = torch.randn(2, 5, 16), torch.randn(2, 6, 16), torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randn(2, 6, 16)
    if not first: ours.q_pos = None
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    hidden = torch.zeros(2, 1, 5, 6).masked_fill(padding[:, None, None], torch.finfo(torch.float32).min)
    wanted, weights = theirs(target, memory, codes, cells, pos if first else None, hidden)
    answer, seen = ours(target, memory, pos, cells, padding, True, codes)
    assert torch.allclose(answer, wanted, atol=1e-5) and torch.allclose(seen, weights, atol=1e-6)


def test_dab_places_queries_as_transformers_does():
    "Codes of boxes, their positions, and the code modulated by width and height, in both layers of a decoder."
    module = pytest.importorskip("transformers.models.dab_detr.modeling_dab_detr")
    torch.manual_seed(0)
    c = DETRConfig.preset("nano", **{**SMALL, "temperature": 10000.0, "queries": "anchors", "cross_attention": "conditional"})
    decoder = beyond.RefiningDecoder(c, (16, 2, 16, 0.0, False, MultiHeadAttention))
    boxes, target = torch.rand(2, 5, 4), torch.randn(2, 5, 16)
    codes = module.encode_sinusoidal_position_embedding(boxes, num_pos_feats=8)
    assert torch.allclose(beyond.box_codes(boxes, 16), codes, atol=1e-6)
    heads = {"place": module.DabDetrMLP(32, 16, 16, 2), "scale": module.DabDetrMLP(16, 16, 16, 2), "sides": module.DabDetrMLP(16, 16, 2, 2)}
    for name, head in heads.items():
        for mine, theirs in zip((0, 2), head.layers): getattr(decoder, name)[mine].load_state_dict(theirs.state_dict())
    assert torch.allclose(decoder.position(boxes), heads["place"](codes), atol=1e-6)
    for first in (True, False):  # the lines of DabDetrDecoder.forward
        wanted = codes[..., :16] * (1 if first else heads["scale"](target))
        size = heads["sides"](target).sigmoid()
        wanted = torch.cat([wanted[..., :8] * (size[..., 1] / boxes[..., 3])[..., None], wanted[..., 8:] * (size[..., 0] / boxes[..., 2])[..., None]], -1)
        assert torch.allclose(decoder.codes(target, boxes, first), wanted, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("numbers", [2, 4])
def test_deformable_attention_is_transformers(levels, numbers):
    module = pytest.importorskip("transformers.models.deformable_detr.modeling_deformable_detr")
    torch.manual_seed(0)
    config = SimpleNamespace(d_model=16, num_feature_levels=levels, disable_custom_kernels=True)
    theirs, ours = module.DeformableDetrMultiscaleDeformableAttention(config, 2, 4).eval(), beyond.DeformableAttention(16, 2, levels).eval()
    for p in theirs.parameters(): nn.init.normal_(p, std=0.5)
    for mine, name in {"offsets": "sampling_offsets", "weights": "attention_weights", "v_proj": "value_proj", "out_proj": "output_proj"}.items():
        getattr(ours, mine).load_state_dict(getattr(theirs, name).state_dict())
    shapes = [(6, 5), (3, 3), (2, 2)][:levels]
    N = sum(h * w for h, w in shapes)
    query, memory, references = torch.randn(2, 5, 16), torch.randn(2, N, 16), torch.rand(2, 5, numbers)
    padding, valid = torch.rand(2, N) > 0.8, 0.5 + torch.rand(2, levels, 2) / 2
    scaled = references[:, :, None] * valid.repeat(1, 1, numbers // 2)[:, None]
    wanted, weights = theirs(query, ~padding, memory, reference_points=scaled, spatial_shapes=torch.tensor(shapes), spatial_shapes_list=shapes)
    answer, places, seen = ours(query, memory, references, shapes, padding, valid)
    assert torch.allclose(answer, wanted, atol=1e-5) and torch.allclose(seen, weights, atol=1e-6) and places.shape == (2, 5, 2, levels, 4, 2)


def test_losses_of_sigmoids_are_those_of_others(batch):
    "RT-DETR's varifocal loss and Deformable DETR's matching in transformers, torchvision's focal loss."
    rt, deformable = pytest.importorskip("transformers.loss.loss_rt_detr"), pytest.importorskip("transformers.loss.loss_deformable_detr")
    targets = batch[2]
    torch.manual_seed(0)
    out = DETROutput(torch.randn(4, 9, 4), torch.tensor([0.5, 0.5, 0.85, 0.85]) + 0.05 * torch.rand(4, 9, 4))  # large boxes: every pair overlaps
    theirs, number = [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets], sum(len(t["labels"]) for t in targets)
    outputs = {"logits": out.logits, "pred_boxes": out.boxes}
    pairs = deformable.DeformableDetrHungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)(outputs, theirs)
    mine = beyond.BeyondMatcher("sigmoid")(out.logits, out.boxes, targets)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(pairs, mine))
    places = torch.cat([torch.full_like(q, b) for b, (q, _) in enumerate(pairs)]), torch.cat([q for q, _ in pairs])
    criterion = SimpleNamespace(_get_source_permutation_idx=lambda indices: places, num_classes=4, alpha=0.75, gamma=2.0)
    wanted = rt.RTDetrLoss.loss_labels_vfl(criterion, outputs, theirs, pairs, number)["loss_vfl"]
    assert torch.allclose(beyond.BeyondCriterion(4, kind="quality")(out, targets)["loss_class"], wanted, rtol=1e-4)
    yes = torch.zeros(4, 9, 4)
    yes[(*places, torch.cat([t["labels"][j] for t, (_, j) in zip(targets, pairs)]))] = 1
    wanted = 2 * sigmoid_focal_loss(out.logits, yes, 0.25, 2.0, "sum") / number
    assert torch.allclose(beyond.BeyondCriterion(4, kind="sigmoid")(out, targets)["loss_class"], wanted, rtol=1e-4)


# --- the command line and files

def nanodetr(*arguments) -> tuple:
    from nanodetr.cli import main

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err: status = main([str(a) for a in arguments])
    return status, out.getvalue() + err.getvalue()


def test_the_preset_trains_and_resumes(tmp_path):
    folder = tmp_path / "run"
    status, said = nanodetr("train", "--preset", "nano-fast", "--overfit", 16, "--epochs", 1, "--device", "cpu", "--out", folder, "--quiet")
    assert status == 0, said
    config = json.loads((folder / "config.json").read_text())
    assert config["queries"] == "proposals" and type(DETR.from_pretrained(folder)) is beyond.BeyondDETR
    assert nanodetr("train", "--preset", "nano-fast", "--overfit", 16, "--epochs", 1, "--device", "cpu", "--out", folder, "--quiet", "--resume")[0] == 0


def test_set_switches_a_cure_on(tmp_path):
    folder = tmp_path / "run"
    status, said = nanodetr("train", "--overfit", 16, "--epochs", 1, "--device", "cpu", "--out", folder, "--quiet", "--set", "queries=anchors", "--set", "denoising=2")
    assert status == 0, said
    assert DETR.from_pretrained(folder).config.cures() == {"queries": "anchors", "denoising": 2}


@pytest.mark.weekly
@pytest.mark.parametrize("way", ["all, deformable"])
def test_exports_as_one_graph(way):
    "torch.export, as `nanodetr export` uses it: any batch and any size, with a mask."
    from nanodetr.checkpoints.export import TensorsOnly, example_inputs

    form = TensorsOnly(small(**WAYS[way]))
    inputs, axes = example_inputs(form, mask=True)
    program = torch.export.export(form, inputs, dynamic_shapes={name: dict.fromkeys(sizes, torch.export.Dim.DYNAMIC) for name, sizes in axes.items()})
    images, mask = torch.rand(3, 3, 40, 56), torch.zeros(3, 40, 56, dtype=torch.bool)
    mask[0, 24:] = True
    wanted, found = form(images, mask), program.module()(images, mask)
    assert torch.allclose(wanted["logits"], found["logits"], atol=1e-4) and torch.allclose(wanted["boxes"], found["boxes"], atol=1e-5)


def test_the_table_of_cures_has_the_steps_that_fit_into_its_minutes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("cures", Path(__file__).with_name("cures.py"))
    cures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cures)
    times, out = tmp_path / "times.json", tmp_path / "out.jsonl"
    times.write_text(json.dumps({"level": "easy", "seconds": {"plain": 30.0}}))
    monkeypatch.setattr(sys, "argv", ["cures.py", "--times", str(times), "--minutes", "1", "--only", "plain", "--images", "2", "--out", str(out)])
    threads = torch.get_num_threads()
    try:
        for _ in range(2): cures.main()  # the second time there is nothing left to do
    finally: torch.set_num_threads(threads)
    assert [row["steps"] for row in cures.rows_of(out)] == [2]


def test_the_fast_preset_has_its_head_start_on_a_folder():
    args = SimpleNamespace(resume=False, from_scratch=False, weights=None, backbone_weights=None, data="photos", preset="nano-fast", set=[])
    assert "from nano-start" in take_start(args)[0] and args.weights == "nano-start"
    args = SimpleNamespace(**{**vars(args), "weights": None, "set": ["cross_attention=conditional"]})
    assert "from nothing" in take_start(args)[0] and args.weights is None
