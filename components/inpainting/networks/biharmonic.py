"""A biharmonic fill made of tensor operations only: batched, exportable to ONNX.

The smoothest surface through the known pixels, the minimiser of the sum of squared Laplacians over
the picture (Damelin & Hoang, "On Surface Completion and Image Inpainting by Biharmonic Functions",
2018, the method behind ``skimage.restoration.inpaint_biharmonic``). A sparse direct solver, as
scikit-image uses, neither batches nor exports, so this one is a cascade: solve on a halved picture,
double the answer, and polish it with conjugate gradients (Bornemann & Deuflhard, "The cascadic
multigrid method for elliptic problems", 1996). More iterations come closer to the exact surface; the
few that are the default are close in thin holes, and smoother than exact in wide ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

_TINY = 1e-12  # keeps converged pictures from dividing nothing by nothing


class _Laplacian:
    """Five-point Laplacian of a picture's pixel grid, symmetric up to the border.

    Neighbours beyond the border do not count: a zero-padded sum of the neighbours there are, less
    their number times the pixel. Made of convolutions alone, so that any height and width export.
    """

    def __init__(self, like: Tensor) -> None:
        cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], dtype=like.dtype, device=like.device)
        self._channels = like.shape[1]
        self._kernel = cross.expand(self._channels, 1, 3, 3)
        self._num_neighbours = self._sum(torch.ones_like(like))

    def __call__(self, field: Tensor) -> Tensor:
        return self._sum(field) - self._num_neighbours * field

    def _sum(self, field: Tensor) -> Tensor:
        return F.conv2d(field, self._kernel, padding=1, groups=self._channels)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def _polish(image: Tensor, mask: Tensor, num_iterations: int) -> Tensor:
    """Conjugate gradients on the bi-Laplacian, moving hole pixels only."""
    laplacian = _Laplacian(image)

    def step(image: Tensor, residual: Tensor, direction: Tensor, energy: Tensor) -> tuple[Tensor, ...]:
        applied = mask * laplacian(laplacian(direction))
        length = energy / _dot(direction, applied).clamp(min=_TINY)
        image = image + length * direction
        residual = residual - length * applied
        new_energy = _dot(residual, residual)
        direction = residual + (new_energy / energy.clamp(min=_TINY)) * direction
        return image, residual, direction, new_energy

    residual = -mask * laplacian(laplacian(image))
    state: tuple[Tensor, ...] = image, residual, residual, _dot(residual, residual)
    if torch.compiler.is_exporting():
        return _repeat(step, state, num_iterations)
    for _ in range(num_iterations):
        state = step(*state)
    return state[0]


def _repeat(step: Callable[..., tuple[Tensor, ...]], state: tuple[Tensor, ...], count: int) -> Tensor:
    """The first tensor after ``count`` steps, as a loop of the exported graph, which is four times as large without."""
    counter = torch.zeros((), dtype=torch.int64)
    distinct = (tensor.clone() for tensor in state)  # a loop takes no tensor twice
    answer: tuple[Tensor, ...] = while_loop(  # type: ignore[no-untyped-call]
        lambda done, *state: done < count, lambda done, *state: (done + 1, *step(*state)), (counter, *distinct)
    )
    return answer[1]


class BiharmonicFill(nn.Module):
    """Fills holes with the (approximately) biharmonic surface through the known pixels.

    Parameters
    ----------
    num_levels:
        How often the picture is halved; height and width must be multiples of ``2**num_levels``.
    num_iterations:
        Conjugate-gradient steps per level; the coarsest level takes twice as many.
    """

    def __init__(self, num_levels: int = 4, num_iterations: int = 8) -> None:
        super().__init__()
        self.num_levels = num_levels
        self.num_iterations = num_iterations

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return int(2**self.num_levels)

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Fill the holes.

        ``image`` is float ``N,C,H,W``, any range, whose values inside the hole are ignored; ``mask``
        is float ``N,1,H,W``, 1 where the hole is. Returns ``N,C,H,W`` with known pixels unchanged.
        """
        return self._solve(image * (1 - mask), mask, self.num_levels)

    def _solve(self, image: Tensor, mask: Tensor, level: int) -> Tensor:
        if level == 0:
            known = (1 - mask).sum(dim=(2, 3), keepdim=True)
            mean = image.sum(dim=(2, 3), keepdim=True) / known.clamp(min=1)
            return _polish(image + mask * mean, mask, 2 * self.num_iterations)
        known = F.avg_pool2d(1 - mask, 2)
        coarse_mask = (known == 0).to(image.dtype)
        coarse_image = F.avg_pool2d(image, 2) / known.clamp(min=0.25)
        coarse = self._solve(coarse_image * (1 - coarse_mask), coarse_mask, level - 1)
        guess = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return _polish(image + mask * guess, mask, self.num_iterations)
