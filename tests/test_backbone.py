"ResNetBackbone on what a notebook cannot show: a real ImageNet ResNet-50 when one is at hand, files and networks that fail."
import copy
import importlib.util
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from nanodetr.backbone import (PARTS, BackboneError, ConvBackbone, FrozenNorm, NormedConv, ResNetBackbone, build_resnet, downsample_mask,
                               fold_norms, freeze_batch_norm, headless, run_unpadded)
from nanodetr.errors import NanodetrError
from nanodetr.data import read_image

REAL = Path(__file__).parents[2] / "shared" / "weights" / "resnet50_v1.py"


def pictures(*sizes, seed=0):
    "Random pictures (3,h,w), their zero-padded batch and its mask."
    draw = torch.Generator().manual_seed(seed)
    images = [torch.randn(3, h, w, generator=draw) for h, w in sizes]
    H, W = (max(size[k] for size in sizes) for k in (0, 1))
    batch, mask = torch.zeros(len(images), 3, H, W), torch.ones(len(images), H, W, dtype=torch.bool)
    for i, image in enumerate(images):
        batch[i, :, :image.shape[1], :image.shape[2]] = image
        mask[i, :image.shape[1], :image.shape[2]] = False
    return images, batch, mask


def whole(image):
    return torch.zeros(1, *image.shape[-2:], dtype=torch.bool)


@pytest.fixture(scope="module")
def real_resnet50():
    if not REAL.exists(): pytest.skip("real ResNet-50 weights (resnet50_v1) are not on this machine")
    spec = importlib.util.spec_from_file_location("resnet50_v1", REAL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.resnet50().eval()


def test_real_resnet50_keeps_its_features(real_resnet50):
    images, batch, mask = pictures((96, 160), (128, 128))
    before = {name: tensor.clone() for name, tensor in real_resnet50.state_dict().items()}
    backbone = ResNetBackbone(resnet=real_resnet50)          # training mode: frozen batch norm has no modes
    assert (backbone.num_channels, backbone.stride) == (2048, 32)
    with torch.no_grad():
        features, small = backbone(batch, mask)
        for i, image in enumerate(images):
            theirs = headless(real_resnet50)(image[None])[0]
            h, w = theirs.shape[-2:]
            assert torch.allclose(features[i, :, :h, :w], theirs, atol=1e-4 * theirs.max().item())
            assert not small[i, :h, :w].any() and (~small[i]).sum() == h * w
    assert all(torch.equal(before[name], tensor) for name, tensor in real_resnet50.state_dict().items())
    assert all(p.requires_grad for p in real_resnet50.parameters())


def test_version_1_weights_from_a_file(real_resnet50):
    "Strides on the 1x1: equal on real photos, or the file would not be worth loading; the other version is far off."
    weights, photos = REAL.with_suffix(".safetensors"), sorted((REAL.parents[1] / "data/demo-photos").glob("*.[jp][pn]g"))
    right, wrong, dilated = (ResNetBackbone("resnet50", weights, stride_first=first, dilation=dilation)
                             for first, dilation in ((True, False), (False, False), (True, True)))
    for photo in photos[:3]:
        image = F.interpolate(read_image(photo)[None], size=(128, 192))[0] * 4 - 2
        with torch.no_grad():
            theirs = headless(real_resnet50)(image[None])
            ours, other, fine = (net(image[None], whole(image))[0] for net in (right, wrong, dilated))
            assert torch.equal(ours, ResNetBackbone(resnet=real_resnet50)(image[None], whole(image))[0])
        largest = theirs.max()
        assert (ours - theirs).abs().max() < 1e-5 * largest         # frozen batch norm rounds otherwise
        assert (fine[..., ::2, ::2] - ours).abs().max() < 1e-5 * largest
        assert (other - ours).abs().mean() > 0.5 * ours.mean()


def test_stride_first_and_what_it_does_not_go_with():
    with pytest.raises(BackboneError, match="1.5"): ResNetBackbone("resnet50", "imagenet", stride_first=True)
    with pytest.raises(BackboneError, match="stride_first"): ResNetBackbone(resnet=torchvision.models.resnet18(), stride_first=True)
    torch.manual_seed(0)
    plain, same = ResNetBackbone("resnet18"), ResNetBackbone("resnet18", stride_first=True)   # basic blocks: one version
    same.load_state_dict(plain.state_dict())
    image = torch.randn(3, 64, 96)
    assert torch.equal(plain(image[None], whole(image))[0], same(image[None], whole(image))[0])


@pytest.mark.parametrize("build", [ConvBackbone, lambda: ResNetBackbone("resnet18"),
                                   lambda: ResNetBackbone("resnet50", dilation=True)])
def test_features_do_not_depend_on_batch_mates(build):
    torch.manual_seed(0)
    backbone = build()                                        # training mode: invariant in both
    for name, tensor in backbone.named_buffers():             # as after training: zero is not mapped to zero
        if name.endswith("running_mean"): tensor.uniform_(-0.5, 0.5)
    images, batch, mask = pictures((70, 45), (33, 97), (70, 45), (1, 1))
    with torch.no_grad():
        features, small = backbone(batch, mask)
        assert features.shape[2:] == small.shape[1:] == tuple(-(-side // backbone.stride) for side in batch.shape[-2:])
        for i, image in enumerate(images):
            alone = backbone(image[None], whole(image))[0][0]
            h, w = alone.shape[-2:]
            assert torch.allclose(features[i, :, :h, :w], alone, atol=1e-4 * max(1, alone.max().item()))
            assert not small[i, :h, :w].any() and small[i].sum() == small[i].numel() - h * w
            assert not features[i].masked_fill(~small[i], 0).any()


def test_channels_last_keeps_the_numbers_and_stays():
    "On CPUs, convolutions are often faster when the channels of a pixel lie side by side; the group norm keeps that order."
    torch.manual_seed(0)
    usual, images = ConvBackbone().eval(), torch.rand(8, 3, 64, 64)
    last, mask = ConvBackbone().eval(), None
    last.load_state_dict(usual.state_dict())
    last = last.to(memory_format=torch.channels_last)
    with torch.no_grad(): features, _ = last(images.to(memory_format=torch.channels_last), mask)
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(features, usual(images, mask)[0], atol=1e-5)


@pytest.mark.parametrize("name, dilation", [("resnet18", False), ("resnet50", True)])
def test_norms_folded_into_the_convolutions(name, dilation):
    "The same features and gradients as the unfolded net and as torch's own; all norms are folded; nothing moves in the state dict."
    torch.manual_seed(0)
    resnet = build_resnet(name, dilation=dilation).eval()
    for tensor in resnet.state_dict().values():
        if tensor.dim() == 1: tensor.uniform_(0.8, 1.2)
    apart = freeze_batch_norm(headless(resnet))
    usual = headless(build_resnet(name, dilation=dilation).eval())
    folded = ResNetBackbone(resnet=resnet, trainable_stages=5).body
    usual.load_state_dict(apart.state_dict(), strict=False)
    assert sum(isinstance(m, NormedConv) for m in folded.modules()) == sum(isinstance(m, nn.Conv2d) for m in usual.modules())
    assert all(m.folded for m in folded.modules() if isinstance(m, FrozenNorm)) and not any(isinstance(m, nn.Conv2d) for m in folded.modules())
    assert {n: t.shape for n, t in folded.state_dict().items()} == {n: t.shape for n, t in apart.state_dict().items()}
    x = torch.randn(1, 3, 32, 32).double()                 # double: a ReLU near zero must not decide otherwise by rounding
    outs = [net.double()(x) for net in (usual, apart, folded)]
    for out in outs: out.square().mean().backward()
    for out in outs[1:]: assert (out - outs[0]).abs().max() < 1e-10 * outs[0].abs().max()
    grads = [{n: p.grad for n, p in net.named_parameters() if "conv" in n or "downsample.0" in n} for net in (usual, apart, folded)]
    for net in grads[1:]:
        assert net.keys() == grads[0].keys()
        for n, grad in net.items(): assert (grad - grads[0][n]).norm() < 1e-9 * grads[0][n].norm(), n


def test_what_cannot_be_folded_stays_apart():
    "A bias, another padding, another kind of convolution, a norm that is no neighbour."
    for conv in (nn.Conv2d(3, 8, 3, bias=True), nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect", bias=False), nn.ConvTranspose2d(3, 8, 3, bias=False)):
        net = freeze_batch_norm(nn.Sequential(conv, nn.BatchNorm2d(8)).eval())
        x = torch.randn(1, 3, 8, 8)
        before = net(x)
        assert torch.equal(fold_norms(net)(x), before) and net[0] is conv and not net[1].folded
    far = freeze_batch_norm(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(8)))
    assert not fold_norms(far)[2].folded


def test_folded_in_a_copy_in_half_precision_and_in_an_export():
    torch.manual_seed(0)
    backbone = ResNetBackbone("resnet18").eval()
    backbone.body.bn1.running_mean.uniform_(-1, 1)
    x = torch.randn(1, 3, 64, 64)
    before = backbone(x, None)[0]
    twin = copy.deepcopy(backbone)
    twin.body.bn1.running_mean.add_(1)                    # the copy's convolution looks at the copy's norm
    assert torch.equal(backbone(x, None)[0], before) and not torch.allclose(twin(x, None)[0], before)
    assert backbone.to(torch.bfloat16)(x.bfloat16(), None)[0].dtype == torch.bfloat16
    program = torch.export.export(copy.deepcopy(twin.body), (x,))
    convolutions = [node for node in program.graph.nodes if "conv2d" in str(node.target)]
    weights = [program.graph_signature.inputs_to_parameters.get(node.args[1].name) for node in convolutions]
    assert len(weights) == 20 and all(weights)             # plain weights, as other programs want them
    assert torch.allclose(program.module()(x), twin(x, None)[0], atol=1e-4)


def test_nearest_counts_a_cell_too_many_where_unpadded_does_not():
    "A padded width that the stride does not divide: why run_unpadded makes its mask from each picture's own cells."
    mask = torch.ones(1, 32, 1333, dtype=torch.bool)
    mask[:, :, :700] = False
    assert (~downsample_mask(mask, (1, 42))).sum() == 23
    body = headless(torchvision.models.resnet18()).eval()
    with torch.no_grad(): assert (~run_unpadded(body, torch.zeros(1, 3, 32, 1333), mask, 32)[1]).sum() == 22 == -(-700 // 32)


def test_strides_that_the_caller_moved_stay_moved():
    torch.manual_seed(0)
    moved, image = build_resnet("resnet50").eval(), torch.rand(1, 3, 128, 128)
    for stage in (moved.layer2, moved.layer3, moved.layer4):     # version 1, by hand
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    with torch.no_grad():
        theirs, (ours, _) = headless(moved)(image), ResNetBackbone(resnet=moved)(image, torch.zeros(1, 128, 128, dtype=torch.bool))
    assert torch.allclose(ours, theirs, atol=1e-3 * theirs.max().item())


def test_gradients_reach_the_images_through_padding_removal():
    _, batch, mask = pictures((64, 64), (40, 33))
    batch.requires_grad_()
    body = headless(torchvision.models.resnet18()).eval()
    run_unpadded(body, batch, mask, 32)[0].sum().backward()
    assert batch.grad[1, :, :40, :33].any() and not batch.grad[1, :, 40:].any()


def test_official_way_runs_the_padded_batch():
    _, batch, mask = pictures((64, 64), (40, 33))
    backbone = ResNetBackbone("resnet18", seal_padding=False)
    with torch.no_grad(): features, small = backbone(batch, mask)
    assert torch.allclose(features, backbone.body(batch)) and small.shape == (2, 2, 2)


def test_a_ready_made_resnet_of_other_widths():
    wide = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=8,
                                     replace_stride_with_dilation=[False, True, True])
    backbone = ResNetBackbone(resnet=wide)
    assert (backbone.num_channels, backbone.stride) == (2048, 8)


def test_stages_and_names():
    for stages, first in ((0, None), (3, "layer2"), (5, "conv1")):
        backbone = ResNetBackbone("resnet18", trainable_stages=stages)
        trained = {name.split(".")[1] for name, p in backbone.named_parameters() if p.requires_grad}
        assert trained == (set() if first is None else {p for p in PARTS[PARTS.index(first):] if p in ("conv1", *PARTS[4:])})
    counts = {name: len(ResNetBackbone(name).state_dict()) for name in ("resnet18", "resnet50")}
    assert counts == {"resnet18": 100, "resnet50": 265}


@pytest.mark.parametrize("kwargs, word", [
    (dict(name="resnet51"), "resnet50"), (dict(name="resnet34", dilation=True), "resnet50"), (dict(trainable_stages=6), "layer2"),
    (dict(resnet=torch.nn.Linear(2, 2)), "torchvision"), (dict(resnet=torchvision.models.resnet18(), dilation=True), "leave out")])
def test_wrong_requests_are_one_clear_line(kwargs, word):
    with pytest.raises(BackboneError, match=word) as caught: ResNetBackbone(**kwargs)
    assert isinstance(caught.value, NanodetrError) and "\n" not in str(caught.value)


def test_wrong_files_name_the_file(tmp_path):
    good = torchvision.models.resnet18().state_dict()
    torch.save({"model": good}, tmp_path / "nested.pth")
    torch.save({**good, "conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "shape.pth")
    save_file({name: t for name, t in good.items() if "layer3" not in name}, tmp_path / "missing.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(print))
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("nested.pth", "shape.pth", "missing.safetensors", "cut.safetensors", "code.pth", "empty.pth", "absent.pth", "."):
        with pytest.raises(BackboneError, match=str(tmp_path / name)) as caught: ResNetBackbone("resnet18", tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save(good, tmp_path / "good.pth")
    loaded = ResNetBackbone("resnet18", tmp_path / "good.pth")
    assert torch.equal(loaded.body.layer4[1].conv2.weight, good["layer4.1.conv2.weight"])


def test_download_only_when_asked_and_its_failure_is_told(monkeypatch):
    def refuse(*args, **kwargs): raise urllib.error.URLError("no network")
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/nonexistent-for-this-test")
    ResNetBackbone("resnet18")
    with pytest.raises(BackboneError, match="resnet18"): ResNetBackbone("resnet18", weights="imagenet")
