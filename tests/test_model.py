"The model in other precisions, what `detect` accepts, and what it says to wrong input."
import copy

import pytest
import torch

from nanodetr import linear
from nanodetr.checkpoints.config import DETRConfig
from nanodetr.data import ShapesDataset
from nanodetr.errors import DataError
from nanodetr.model import DETR, check_image


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return DETR(DETRConfig.preset("nano")).eval()


@pytest.fixture(scope="module")
def images():
    return torch.stack([image for image, _ in ShapesDataset("val", n=4)])


@torch.no_grad()
def test_other_precisions_and_memory_layouts(model, images):
    "Buffers follow the model, images are brought to its type, position codes are computed in float32 and then cast."
    plain = model(images)
    double = copy.deepcopy(model).double()(images)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16): half = model(images)
    assert double.boxes.dtype == torch.float64 and last.boxes.dtype == half.boxes.dtype == torch.float32
    for other, tolerance in ((double, 1e-4), (last, 1e-4), (half, 5e-2)):
        assert (plain.boxes - other.boxes).abs().max() < tolerance


def test_detect_takes_pictures_of_any_size(model, images):
    pictures = [images[0], torch.rand(3, 90, 140), images[2, :, :, :40], torch.rand(50, 70), torch.rand(1, 64, 64)]
    found = model.detect(pictures, threshold=0.0)
    assert [len(d["scores"]) for d in found] == [12] * 5
    assert all((d["scores"].diff() <= 0).all() for d in found)
    assert model.detect(pictures[1], 0.0)[0]["boxes"].allclose(found[1]["boxes"], atol=1e-2)
    assert model.detect([]) == [] and all(len(d["scores"]) == 0 for d in model.detect(pictures, threshold=0.9))


@pytest.mark.parametrize("asked", [{"threshold": 50}, {"threshold": 1.01}, {"threshold": float("nan")}, {"threshold": "0.5"}, {"batch_size": 0}, {"batch_size": -1}, {"batch_size": 1.5}])
def test_detect_refuses_what_would_find_nothing(model, images, asked):
    with pytest.raises(DataError, match=next(iter(asked))): model.detect(images, **asked)


def test_detect_leaves_the_mode_as_it_was(model, images):
    trained = copy.deepcopy(model).train()
    trained.detect(images)
    assert trained.training and not model.training


@pytest.mark.parametrize("wrong, says", [
    (torch.rand(3, 8, 8) * 255, "divide bytes by 255"), (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8 values"),
    (torch.rand(8, 8, 3), "put the channels first"), (torch.full((3, 8, 8), torch.nan), "nan..nan"), ("cat.jpg", "is a str")])
def test_wrong_images_are_named(model, wrong, says):
    with pytest.raises(DataError, match="image 1 .*" + says): model.detect([torch.rand(3, 8, 8), wrong])


def test_grey_images_become_three_channels():
    assert check_image(torch.rand(5, 7), "grey").shape == check_image(torch.rand(1, 5, 7), "grey").shape == (3, 5, 7)


def test_a_good_picture_is_checked_without_a_copy():
    "Pictures may be large: only one with values a little outside of 0..1 is copied, to be cut."
    picture = torch.rand(3, 5, 7)
    assert check_image(picture, "x").data_ptr() == picture.data_ptr() and check_image(picture[0], "x").data_ptr() == picture.data_ptr()
    beyond = picture.clone()
    beyond[0, 0, 0] = 1.0005
    assert check_image(beyond, "x").max() == 1 and beyond.max() > 1 and torch.equal(check_image(beyond, "x")[1:], picture[1:])


@pytest.mark.parametrize("preset", ["nano", "nano-fast"])
def test_linear_layers_as_convolutions_change_no_result(preset, monkeypatch):
    "As on a processor that gains from them, and with products of every size: the same answers and slopes, also after copying and saving."
    def answers(gains, least=0):
        monkeypatch.setattr(linear, "slow_products", lambda: gains)
        monkeypatch.setattr(linear, "LARGE", least)
        torch.manual_seed(0)
        model = DETR(DETRConfig.preset(preset)).train()
        assert {type(layer) is linear.Linear for layer in model.modules() if isinstance(layer, torch.nn.Linear)} == {gains}
        with torch.no_grad():
            for p in model.parameters(): p.add_(0.02 * torch.randn_like(p))  # no bias and no head at zero
        out = model(torch.rand(16, 3, 64, 96, generator=torch.Generator().manual_seed(1)))
        (out.logits.square().mean() + out.boxes.square().mean()).backward()
        assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()
        return [out.logits.detach(), out.boxes.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])]

    kinds = [answers(False), answers(True)]
    for plain, ours in zip(*kinds): torch.testing.assert_close(ours, plain, rtol=1e-3, atol=2e-5)
    assert any(not torch.equal(a, b) for a, b in zip(*kinds)) or not torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("preset", ["nano", "nano-fast"])
def test_trainings_on_shapes_keep_their_rounding(preset, monkeypatch):
    "A step of 16 shapes gains nothing from convolutions, and its figures are to be the same on every processor: no product of it is large enough."
    monkeypatch.setattr(linear, "slow_products", lambda: True)
    sizes, model = [], DETR(DETRConfig.preset(preset)).train()
    def note(layer, given): sizes.append(layer.worth_it(given[0]))
    for layer in model.modules():
        if isinstance(layer, linear.Linear): layer.register_forward_pre_hook(note)
    model(torch.rand(16, 3, 64, 64))
    assert len(sizes) > 20 and not any(sizes)
    model(torch.rand(16, 3, 96, 96))  # photos
    assert any(sizes) or not torch.backends.mkldnn.is_available()
