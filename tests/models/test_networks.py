import pytest
import torch

from lensq.models.networks import NETWORKS, ResidualBlock, build_network

SIZES = (16, 31, 32, 41, 48, 64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_decoder_returns_to_the_encoders_size(name, size):
    encoder, decoder = build_network(name, size, latent=3, width=2)
    features = encoder(torch.rand(2, 1, size, size))
    assert features.shape == (2, encoder.features)
    assert decoder(torch.rand(5, 3)).shape == (5, 1, size, size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [
        ("conv5", 32, [32, 64, 128, 256, 512]),
        ("conv4", 32, [32, 32, 32, 32]),
        ("resnet18", 64, [64, 64, 128, 256, 512]),
    ],
)
def test_published_channels_and_strides(name, width, channels):
    encoder, _ = build_network(name, 64, latent=128, width=width)
    strided = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1)]
    if name != "resnet18":
        assert [m.out_channels for m in strided] == channels
        assert {m.stride for m in strided} == {(2, 2)}
        assert {m.kernel_size for m in strided} == {(3, 3) if name == "conv5" else (4, 4)}
    else:
        assert len(strided) == 17  # ResNet-18: 17 convolutions and a linear layer
        assert [m.out_channels for m in strided if m.stride == (2, 2)] == [64, 128, 256, 512]


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_looks_at_one_object_at_a_time(name):
    encoder, decoder = (part.eval() for part in build_network(name, 32, latent=3, width=4))
    generator = torch.Generator().manual_seed(0)
    images, z = torch.rand(6, 1, 32, 32, generator=generator), torch.randn(6, 3, generator=generator)
    for network, batch in ((encoder, images), (decoder, z)):
        together = network(batch)
        alone = torch.cat([network(row[None]) for row in batch])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("before", [4, 8])
def test_a_strided_shortcut_takes_every_second_pixel_at_any_width(before):
    block = ResidualBlock(before, 2 * before, stride=2).eval()
    x = torch.randn(3, before, 9, 9, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    strided = torch.nn.functional.conv2d(x.double(), block.shortcut[0].weight.double(), stride=2)
    expected = torch.relu(block.main(x) + block.shortcut[1](strided.float()))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_resnet_decoder_can_draw_a_point_source():
    """Neighbours inside a 2x2 cell of the last enlargement differ: the last convolutions are at full size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _, decoder = build_network("resnet18", 32, latent=3, width=16)
    image = decoder.eval()(torch.randn(1, 3, generator=torch.Generator().manual_seed(0)))
    cells = image.unfold(2, 2, 2).unfold(3, 2, 2)
    # Wide enough that untrained ReLUs leave no cell dark.
    assert (cells.std(dim=(-2, -1)) > 1e-6).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "vit"}, "vit.*conv5"),
        ({"size": 15}, "15"),
        ({"size": 32.0}, "32.0"),
        ({"latent": 0}, "latent=0"),
        ({"width": 0}, "width=0"),
    ],
)
def test_bad_arguments_are_named(change, words):
    arguments = {"name": "conv5", "size": 32, "latent": 4, "width": 4} | change
    with pytest.raises(ValueError, match=words):
        build_network(**arguments)
