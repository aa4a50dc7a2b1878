"""The architecture table counts every trained parameter once and gives the shapes that images go through."""

import pytest

from lensq.models.layers import layer_table
from lensq.models.variants import MODELS, VAE


def outputs(layers) -> list[str]:
    """Shapes without the spaces in them."""
    return ["".join(shape.split()) for shape in layers["output"]]


@pytest.mark.parametrize("variant", MODELS)
def test_every_trained_parameter_is_counted_once(variant):
    vae = VAE(MODELS[variant].config(size=20, latent=3, width=4))
    table = layer_table(vae)
    layers = table.iloc[:-1]
    trained = sum(p.numel() for p in vae.parameters())
    assert layers["parameters"].sum() == table["parameters"].iloc[-1] == trained
    for part, module in (("encoder", vae.encoder), ("decoder", vae.decoder)):
        count = sum(p.numel() for p in module.parameters())
        assert layers.loc[layers["part"] == part, "parameters"].sum() == count


def test_shapes_of_the_published_encoder():
    table = layer_table(VAE(MODELS["SVDD_VAE"].config(size=64, latent=128)))
    encoder = table[table["part"] == "encoder"]
    assert outputs(encoder) == [
        "32×32×32",
        "64×16×16",
        "128×8×8",
        "256×4×4",
        "512×2×2",
        "2048",
    ]
    assert encoder["layer"].iloc[0] == "Conv2d 3x3, stride 2, BatchNorm2d, LeakyReLU"
    assert encoder["parameters"].iloc[1] == 3 * 3 * 32 * 64 + 2 * 64
    decoder = table[table["part"] == "decoder"]
    assert outputs(decoder.iloc[[0, -1]]) == ["2048", "1×64×64"]


@pytest.mark.slow
def test_a_mixture_shows_its_clusters_and_a_feature_network_no_parameters():
    mixture = layer_table(VAE(MODELS["UNSUP_GMVAE"].config(size=20, latent=3, width=4, clusters=7)))
    own = mixture[mixture["part"] == "parameters"]
    assert list(own["layer"]) == ["by_cluster", "prior_mu", "prior_logvar"]
    assert outputs(own) == ["7×256", "7×3", "7×3"]
    dfc = layer_table(VAE(MODELS["DFC_VAE"].config(size=20, latent=3, width=4)))
    assert dfc.loc[dfc["part"] == "loss", ["layer", "parameters"]].to_numpy().tolist() == [
        ["network: FeatureNetwork", 0]
    ]


def test_blocks_say_which_way_they_go():
    table = layer_table(VAE(MODELS["RESNET18_VAE"].config(size=48, latent=3, width=4)))
    layers = table.loc[table["part"] != "all", "layer"].tolist()
    assert layers.count("ResidualBlock, stride 2") == layers.count("ResidualBlock, enlarged") == 3
    assert layers.count("ResidualBlock") == 10
    assert "posterior: GaussianHead" in layers


def test_the_model_is_left_as_it_was():
    vae = VAE(MODELS["RESNET18_VAE"].config(size=20, latent=3, width=4)).train()
    layer_table(vae)
    assert vae.training
    assert not any(module._forward_hooks for module in vae.modules())
