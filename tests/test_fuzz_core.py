"Boxes, matching and loss on random cases, against torchvision and scipy. NANODETR_FUZZ set: 10,000 cases in place of a few."
import os

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_area as their_area
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from nanodetr.boxes import EPS, box_area, cxcywh_to_xyxy, paired_giou, paired_iou, pairwise_giou, pairwise_iou, xyxy_to_cxcywh
from nanodetr.errors import NanodetrError
from nanodetr.loss import SetCriterion
from nanodetr.matching import HungarianMatcher
from nanodetr.model import DETROutput

fuzz = settings(max_examples=10_000 if os.environ.get("NANODETR_FUZZ") else 60, deadline=None)
place, side = st.floats(0, 1), st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-9, 1e-4, 0.5, 1.0]))
boxes = st.lists(st.tuples(place, place, side, side), min_size=1, max_size=6).map(lambda rows: torch.tensor(rows, dtype=torch.float64))  # cxcywh


# ---------------------------------------------------------------- boxes

@fuzz
@given(boxes, st.sampled_from([1.0, 640.0]))
def test_boxes_go_there_and_back(some, scale):
    some = some * scale
    corners = cxcywh_to_xyxy(some)
    torch.testing.assert_close(xyxy_to_cxcywh(corners), some, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(corners, box_convert(some, "cxcywh", "xyxy"))
    torch.testing.assert_close(xyxy_to_cxcywh(corners), box_convert(corners, "xyxy", "cxcywh"))
    torch.testing.assert_close(box_area(corners), their_area(corners))
    torch.testing.assert_close(box_area(corners), some[:, 2] * some[:, 3], rtol=1e-6, atol=1e-12 * scale**2)


@fuzz
@given(boxes, boxes)
def test_overlaps_are_those_of_torchvision(some, others):
    "Symmetric, in range, 1 with itself; and where both boxes together have hardly an area, 0 in place of their NaN."
    a, b = cxcywh_to_xyxy(some), cxcywh_to_xyxy(others)
    for ours, theirs, paired, low in ((pairwise_iou, box_iou, paired_iou, 0), (pairwise_giou, generalized_box_iou, paired_giou, -1)):
        table = ours(a, b)
        assert table.shape == (len(a), len(b)) and ((table >= low - 1e-6) & (table <= 1 + 1e-6)).all()
        torch.testing.assert_close(table, ours(b, a).T)
        known = box_area(a)[:, None] + box_area(b) > 4 * EPS  # so that the union, at least half of it, is above EPS
        torch.testing.assert_close(table[known], theirs(a, b)[known], rtol=0, atol=1e-6)
        torch.testing.assert_close(paired(a[:1].expand_as(b), b), table[0])
        torch.testing.assert_close(ours(a, a).diagonal(), (box_area(a) > EPS).double(), rtol=0, atol=1e-6)
    assert (pairwise_giou(a, b) <= pairwise_iou(a, b) + 1e-6).all()


@fuzz
@given(boxes, boxes)
def test_overlaps_have_gradients_that_are_numbers(some, others):
    for overlap in (pairwise_iou, pairwise_giou):
        a, b = (part.float().requires_grad_() for part in (some, others))
        table = overlap(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))
        table.sum().backward()
        assert table.isfinite().all() and a.grad.isfinite().all() and b.grad.isfinite().all()


# ---------------------------------------------------------------- matching

def batch(seed: int, counts: list, queries: int, classes: int, layers: int = 1, thin: bool = False) -> tuple:
    "(logits (L,B,Q,C+1), boxes (L,B,Q,4), targets) at random. thin: half of all boxes have a side of 0."
    draw = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.rand(*shape, generator=draw)
    logits, guesses = 8 * random(layers, len(counts), queries, classes + 1) - 4, random(layers, len(counts), queries, 4)
    targets = [{"labels": torch.randint(classes, (n,), generator=draw), "boxes": random(n, 4)} for n in counts]
    if thin:
        for part in (guesses, *(target["boxes"] for target in targets)): part[..., 2:] *= random(*part.shape[:-1], 2) > 0.3
    return logits, guesses, targets


def cost_of(logits, guesses, target) -> np.ndarray:
    "(Q,N) what the paper's equation 1 says, with torchvision's GIoU; 0 for boxes without area."
    likely = logits.double().softmax(-1)[:, target["labels"]]
    far = (guesses.double()[:, None] - target["boxes"].double()).abs().sum(-1)
    corners = (box_convert(part.double(), "cxcywh", "xyxy") for part in (guesses, target["boxes"]))
    return (5 * far - likely - 2 * generalized_box_iou(*corners).nan_to_num(0)).numpy()


counts = st.lists(st.integers(0, 6), min_size=1, max_size=3)
seeds = st.integers(0, 2**32 - 1)


@fuzz
@given(seeds, counts, st.integers(6, 9), st.integers(1, 4))
def test_matches_cost_as_little_as_scipy_finds(seed, counts, queries, classes):
    logits, guesses, targets = batch(seed, counts, queries, classes)
    for pair, *case in zip(HungarianMatcher()(logits[0], guesses[0], targets), logits[0], guesses[0], targets):
        query, thing = (index.tolist() for index in pair)
        cost = cost_of(*case)
        assert sorted(thing) == list(range(len(case[-1]["labels"]))) and query == sorted(set(query)) and set(query) <= set(range(queries))
        assert abs(cost[query, thing].sum() - cost[linear_sum_assignment(cost)].sum()) < 1e-4


@fuzz
@given(seeds, counts, st.integers(3, 7), st.sampled_from([0.0, 1e-30, 1.0, 1e6, 1e30, float("inf"), float("nan")]), st.sampled_from(["logits", "boxes", "targets", "labels"]))
def test_any_batch_is_matched_or_refused_in_one_line(seed, counts, queries, value, where):
    logits, guesses, targets = batch(seed, counts, queries, 3, thin=True)
    if where == "labels": targets[0]["labels"] = targets[0]["labels"] + (int(value) if np.isfinite(value) and abs(value) < 1e9 else -9)
    else: {"logits": logits, "boxes": guesses, "targets": targets[0]["boxes"]}[where][..., :1] = value
    try: pairs = HungarianMatcher()(logits[0], guesses[0], targets)
    except NanodetrError as error: assert "\n" not in str(error)
    else:
        for (query, thing), target in zip(pairs, targets):
            assert sorted(thing.tolist()) == list(range(len(target["labels"]))) and len(set(query.tolist())) == len(query)


# ---------------------------------------------------------------- loss

def losses_of(logits, guesses, targets) -> tuple:
    "(the criterion's losses by name, their weighted sum, the gradients)"
    logits, guesses = logits.clone().requires_grad_(), guesses.clone().requires_grad_()
    criterion = SetCriterion(logits.shape[-1] - 1)
    *aux, last = (DETROutput(*layer) for layer in zip(logits, guesses))
    losses = criterion(DETROutput(last.logits, last.boxes, aux), targets)
    total = criterion.total(losses)
    total.backward()
    return losses, total.detach(), [logits.grad, guesses.grad]


@fuzz
@given(seeds, counts, st.integers(6, 9), st.integers(1, 4), st.integers(1, 3))
def test_losses_and_gradients_are_numbers(seed, counts, queries, classes, layers):
    "Also for boxes without area and pictures without objects."
    losses, total, grads = losses_of(*batch(seed, counts, queries, classes, layers, thin=True))
    assert all(value.isfinite() and value >= 0 for value in losses.values()) and total.isfinite() and all(grad.isfinite().all() for grad in grads)
    assert len(losses) == 3 * layers + 2 and (sum(counts) or losses["loss_l1"] == losses["loss_giou"] == 0)


@fuzz
@given(seeds, counts, st.integers(6, 9), st.integers(1, 4), st.integers(1, 3))
def test_the_order_of_objects_and_images_changes_nothing(seed, counts, queries, classes, layers):
    logits, guesses, targets = batch(seed, counts, queries, classes, layers)
    draw = torch.Generator().manual_seed(seed)
    images, turned = torch.randperm(len(counts), generator=draw), []
    for i in images:
        order = torch.randperm(counts[i], generator=draw)
        turned.append({name: value[order] for name, value in targets[i].items()})
    (losses, total, grads), (others, other, other_grads) = losses_of(logits, guesses, targets), losses_of(logits[:, images], guesses[:, images], turned)
    for name in losses: torch.testing.assert_close(losses[name], others[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total, other, rtol=1e-4, atol=1e-5)
    for grad, other in zip(grads, other_grads): torch.testing.assert_close(grad[:, images], other, rtol=1e-3, atol=1e-5)
