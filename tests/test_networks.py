from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from components.inpainting.networks import (
    GENERATORS,
    ModelFileError,
    build_generator,
    load_generator,
    save_generator,
)
from components.inpainting.networks.blind_unet import BlindUNet
from components.inpainting.networks.context_encoder import ContextEncoder, PatchDiscriminator, TwoPathDiscriminator
from components.inpainting.networks.residual_unet import ResidualUNet
from components.inpainting.networks.texture_discriminator import TextureDiscriminator


def picture_and_mask(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(2, 3, height, width), (torch.rand(2, 1, height, width) > 0.8).float()


SIGHTED = [name for name, kind in GENERATORS.items() if not kind.blind]


@pytest.mark.parametrize("name", SIGHTED)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (16, 160)])
def test_generators_keep_known_pixels_at_any_size(name: str, size: tuple[int, int]) -> None:
    image, mask = picture_and_mask(*size)
    repair = build_generator(name).eval()(image, mask)
    assert repair.shape == image.shape
    assert torch.equal(repair * (1 - mask), image * (1 - mask))


@pytest.mark.parametrize("name", SIGHTED)
def test_generators_do_not_see_inside_the_hole(name: str) -> None:
    image, mask = picture_and_mask(32, 32)
    generator = build_generator(name).eval()
    assert torch.allclose(
        generator(image, mask) * mask, generator(torch.where(mask > 0, 0.5, image), mask) * mask, atol=1e-6
    )


def test_untrained_residual_unet_is_the_biharmonic_fill() -> None:
    image, mask = picture_and_mask(32, 32)
    generator = ResidualUNet()
    assert torch.equal(generator(image, mask), generator.fill(image, mask))


def test_residual_unet_repairs_the_mirror_picture_alike() -> None:
    image, mask = picture_and_mask(32, 32)
    generator = ResidualUNet()
    nn.init.normal_(generator.refiner.unet.head.weight, std=0.1)
    repair = generator(image, mask)
    assert not torch.allclose(repair, generator.fill(image, mask), atol=0.01)
    assert torch.allclose(generator(image.flip(3), mask.flip(3)).flip(3), repair, atol=1e-4)


def test_unmirrored_it_answers_what_it_makes_of_the_picture_alone_also_from_disk(tmp_path: Path) -> None:
    image, mask = picture_and_mask(32, 32)
    generator = build_generator("residual_unet", mirrored=False).eval()
    assert isinstance(generator, ResidualUNet)
    nn.init.normal_(generator.refiner.unet.head.weight, std=0.1)
    save_generator(generator, tmp_path)
    repair = load_generator(tmp_path)(image, mask)
    assert torch.equal(repair, generator.refiner(generator.fill(image, mask), mask))
    mirrored = generator.refiner(generator.fill(image, mask).flip(3), mask.flip(3)).flip(3)
    generator.mirrored = True
    assert torch.equal(generator(image, mask), (repair + mirrored) / 2)


def test_a_model_from_before_there_was_a_choice_is_mirrored(tmp_path: Path) -> None:
    save_generator(build_generator("residual_unet"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["settings"]["mirrored"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    generator = load_generator(tmp_path)
    assert isinstance(generator, ResidualUNet) and generator.mirrored


def test_residual_unet_is_blind_to_contrast_and_brightness() -> None:
    image, mask = picture_and_mask(32, 32)
    generator = ResidualUNet()
    nn.init.normal_(generator.refiner.unet.head.weight, std=0.1)
    faint = generator(image * 0.5 + 0.25, mask)
    assert torch.allclose(faint, generator(image, mask) * 0.5 + 0.25, atol=0.02)


def test_a_blind_generator_finds_the_same_damage_in_a_reflected_picture() -> None:
    image, _ = picture_and_mask(64, 96)
    generator = BlindUNet().eval()
    nn.init.normal_(generator.core.finder.head.weight, std=0.5)
    found = generator.find(image)
    assert found.std() > 0.01
    for flip in ([2], [3], [2, 3]):
        assert torch.allclose(generator.find(image.flip(flip)).flip(flip), found, atol=1e-5)


def test_a_blind_generator_leaves_alone_what_it_takes_for_sound_and_fills_what_it_finds() -> None:
    image, mask = picture_and_mask(64, 96)
    generator = BlindUNet().eval()
    assert generator.core.finder.head.bias is not None
    nn.init.constant_(generator.core.finder.head.bias, -30.0)  # it finds nothing
    assert torch.allclose(generator(image, torch.zeros_like(mask)), image, atol=1e-6)
    known = generator(image, mask)
    assert not torch.allclose(known * mask, image * mask, atol=0.05)  # what is known to be damaged it fills
    nn.init.constant_(generator.core.finder.head.bias, 30.0)  # it finds damage everywhere
    assert generator(image, torch.zeros_like(mask)).std() < 1e-3
    assert (generator.find(image) > 0.99).all()


def test_context_encoder_is_the_papers() -> None:
    layers = list(ContextEncoder().layers)
    strided = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    assert [layer.out_channels for layer in strided] == [64, 128, 256, 512]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.5]
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in layers) == 4


def test_two_paths_share_their_trunk_and_end_in_fully_connected_layers() -> None:
    discriminator = TwoPathDiscriminator(32)
    assert isinstance(discriminator.whole_image[-1], nn.Linear)
    assert isinstance(discriminator.local_texture[-1], nn.Linear)
    for path in (0, 1):
        discriminator.zero_grad()
        discriminator(*picture_and_mask(32, 32)).logits[path].sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.trunk.parameters())


@pytest.mark.parametrize(
    ("discriminator", "size"),
    [(TwoPathDiscriminator(32), 32), (TwoPathDiscriminator(128), 128), (PatchDiscriminator(), 64)],
)
def test_discriminators_judge_every_picture(discriminator: nn.Module, size: int) -> None:
    for logits in discriminator(*picture_and_mask(size, size)).logits:
        assert logits.shape[0] == 2


def test_a_judge_of_texture_minds_a_single_pixel_nearby_and_no_other() -> None:
    image, mask = picture_and_mask(64, 96)
    discriminator = TextureDiscriminator().eval()
    before = discriminator(image, mask).logits
    image[0, :, 3, 5] += 0.5
    changed = [(a != b)[:, 0] for a, b in zip(before, discriminator(image, mask).logits, strict=True)]
    assert [tuple(x.shape) for x in changed] == [(2, 16, 24), (2, 8, 12)]
    assert all(x[0, 0, 0] and not x[1].any() and not x[0, 4:].any() and not x[0, :, 5:].any() for x in changed)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_survives_the_disk(name: str, tmp_path: Path) -> None:
    image, mask = picture_and_mask(32, 32)
    generator = build_generator(name).eval()
    save_generator(generator, tmp_path)
    assert torch.equal(load_generator(tmp_path)(image, mask), generator(image, mask))


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_a_damaged_model_folder_says_so(damage: str, tmp_path: Path) -> None:
    save_generator(build_generator("residual_unet"), tmp_path)
    weights = tmp_path / "generator.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        (tmp_path / "config.json").write_text('{"model": "context_encoder", "settings": {}}')
    with pytest.raises(ModelFileError, match="no usable generator"):
        load_generator(tmp_path)
