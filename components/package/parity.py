"""Proof that an exported generator repairs as the network it was made from: on pictures of any size, in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from components.inpainting.dataset import PreparedDataset, Split
from components.inpainting.images import ROUNDING, Bytes, Floats, resize, to_bytes, to_planes
from components.inpainting.inpainter import Inpainter
from components.inpainting.metrics import ssim
from components.inpainting.networks import Generator
from components.inpainting.tolerance import COARSE_SSIM, MIN_AGREEMENT, min_ssim

_SIZES = ((1.0, 1.0), (1.6, 1.6), (3.0, 4.1))  # times the training size: as trained, odd, and long
_BATCHES = ((1, 1, 1), (3, 1, 2), (5, 3, 2))  # pictures, rows and columns in half training sizes


class ParityError(ValueError):
    """The export repairs differently from the network it was made from."""


@dataclass(frozen=True)
class Case:
    """A picture (uint8 ``H,W,3``), a mask (``H,W``), and the trained network's own repair of it.

    Where ``found``, the picture is damaged, and the mask is what the network found of that.
    """

    name: str
    image: Bytes
    mask: Bytes
    expected: Bytes
    found: bool = False


@dataclass(frozen=True)
class Row:
    """How far an export is from the network on one case, or one batch: grey levels of 255, and SSIM."""

    case: str
    size: str
    max_difference: int
    ssim: float
    agreement: float = 1.0  # of the found masks


def golden_cases(data: PreparedDataset, trained: Inpainter) -> list[Case]:
    """Real test pictures at several sizes, none a multiple of a stride but the first, under every family."""
    cases = []
    for name, test, family, which, (height, width) in _drawn(data):
        image = resize(test.images[which], height, width)
        rows, columns = (np.arange(side) * data.image_size // side for side in (height, width))
        mask = np.ascontiguousarray(test.masks(family)[which][np.ix_(rows, columns)])
        cases.append(Case(name, image, mask, trained(image, mask)))
    return cases


def blind_cases(data: PreparedDataset, find: Callable[[Bytes], Bytes], trained: Inpainter) -> list[Case]:
    """The same pictures with the damage painted in: what the network finds of it, and makes of that."""
    cases = []
    for name, test, family, which, (height, width) in _drawn(data):
        image = resize(test.damaged(family)[which], height, width)
        mask = find(image)
        if mask.any():
            cases.append(Case(f"blind-{name}", image, mask, trained(image, mask), found=True))
    return cases


def check_parity(
    exported: Inpainter, cases: Sequence[Case], find: Callable[[Bytes], Bytes] | None = None, tolerance: int = ROUNDING
) -> list[Row]:
    """Compare an export with what the trained network made of every case; returns the differences.

    ``find`` is the export's own way to find damage, for the cases of a blind network; pictures are then repaired under
    the network's mask, so that one pixel more or less does not hide what else differs.
    Raises ``ParityError`` above a ``tolerance`` in grey levels, below its ``min_ssim``, and below ``MIN_AGREEMENT``.
    """
    return [_held(_compare(case, exported, find), tolerance, min_ssim(tolerance)) for case in cases]


def check_batches(engine: Path, generator: Generator, data: PreparedDataset) -> list[Row]:
    """Run an ONNX file and its network on the same batches of several lengths, heights and widths.

    Compared is all that the network answers, before any known pixel is put back, so the SSIM is ``COARSE_SSIM`` at
    least. Raises ``ParityError`` as ``check_parity`` does.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
    rows = []
    for count, image, mask in _batches(data, generator.stride):
        with torch.inference_mode():
            expected = generator(torch.from_numpy(image), torch.from_numpy(mask)).numpy()
        found = session.run(None, {"image": image, "mask": mask})[0]
        size = f"{image.shape[3]}x{image.shape[2]}"
        rows.append(_held(_row(f"batch of {count}", size, to_bytes(found), to_bytes(expected)), ROUNDING, COARSE_SSIM))
    return rows


def _compare(case: Case, exported: Inpainter, find: Callable[[Bytes], Bytes] | None) -> Row:
    size = f"{case.mask.shape[1]}x{case.mask.shape[0]}"
    row = _row(case.name, size, exported(case.image, case.mask)[None], case.expected[None])
    if not case.found:
        return row
    assert find is not None, "a blind model's export finds damage"
    agreement = float((find(case.image) == case.mask).mean())
    return Row(row.case, row.size, row.max_difference, row.ssim, agreement)


def _row(case: str, size: str, found: Bytes, expected: Bytes) -> Row:
    difference = int(np.abs(expected.astype(int) - found.astype(int)).max())
    return Row(case, size, difference, float(ssim(found, expected).min()))


def _held(row: Row, tolerance: int, least_ssim: float) -> Row:
    if row.max_difference > tolerance or row.ssim < least_ssim:
        raise ParityError(
            f"the ONNX export differs from torch by {row.max_difference} of 255 (SSIM {row.ssim:.5f}) on {row.case}; "
            "it is not packaged. Report this with the version of torch and onnxruntime"
        )
    if row.agreement < MIN_AGREEMENT:
        raise ParityError(
            f"the ONNX export finds other damage than torch does, in {1 - row.agreement:.2%} of the pixels of "
            f"{row.case}; it is not packaged. Report this with the version of torch and onnxruntime"
        )
    return row


def _drawn(data: PreparedDataset) -> Iterator[tuple[str, Split, str, int, tuple[int, int]]]:
    """Name, split, mask family, number of the picture, and the height and width that it is to have."""
    test = data.split("test")
    for number, (tall, wide) in enumerate(_SIZES):
        for index, family in enumerate(data.families):
            which = (number * len(data.families) + index) % len(test.images)
            yield (
                f"{number}-{family}",
                test,
                family,
                which,
                (round(data.image_size * tall), round(data.image_size * wide)),
            )


def _batches(data: PreparedDataset, stride: int) -> Iterator[tuple[int, Floats, Floats]]:
    """Batches as a network sees them: their length, pictures ``N,3,H,W`` with black holes, masks ``N,1,H,W``."""
    test, family = data.split("test"), data.families[0]
    for count, tall, wide in _BATCHES:
        height, width = (-(-data.image_size * side // (2 * stride)) * stride for side in (tall, wide))
        images = np.stack([resize(test.images[i % len(test.images)], height, width) for i in range(count)])
        rows, columns = (np.arange(side) * data.image_size // side for side in (height, width))
        masks = np.stack([test.masks(family)[i % len(test.images)][np.ix_(rows, columns)] for i in range(count)])
        planes = masks[:, None].astype(np.float32)
        yield count, to_planes(images) * (1 - planes), planes
