"""Normalisation layers of the backbones, computed as part of the convolution before them where they are constant.

Legend: `B` images, `C` channels, `H, W` height and width.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, TypeGuard, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from det_backbones.deformable import DeformConv2d
from det_backbones.sync_norm import SyncBatchNorm2d

Norm = Literal["frozen_bn", "frozen_statistics_bn", "bn", "sync_bn", "gn"]
"""Kinds of normalisation: all constant; statistics constant but affine trained (mmdetection's `norm_eval`); batch
statistics; batch statistics over all processes; group normalisation (statistics of the image alone)."""


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose statistics never change, in `train()` as in `eval()`.

    `weight`, `bias`, `running_mean` and `running_var` are [C] under the names `nn.BatchNorm2d` uses, so that
    checkpoints fit; a stored `num_batches_tracked` is ignored. Fresh layers are the identity exactly: `running_var`
    starts as `1 - eps`.

    Args:
        channels: C.
        eps: Added to `running_var`. detectron2: 1e-5; torchvision's published detectors and maskrcnn-benchmark: 0.
        affine: Whether `weight` and `bias` are parameters to train (else buffers).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, *, affine: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.affine = affine
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.register_buffer("weight", torch.ones(channels))
            self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - eps)
        self.register_load_state_dict_pre_hook(_drop_batch_count)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; a convolution before it is better folded (:func:`convolve_and_normalize`).

        Args:
            x: [B, C, H, W].

        Returns:
            [B, C, H, W], in the dtype of `x`.
        """
        scale, shift = affine_map(self, x.dtype)
        return x * scale.to(x.dtype).view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        """The arguments that differ between layers."""
        return f"{self.channels}, eps={self.eps}, affine={self.affine}"


def _drop_batch_count(module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ARG001
    state_dict.pop(prefix + "num_batches_tracked", None)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each place of a map (ConvNeXt, ViTDet).

    Args:
        channels: C.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Normalise a map [B, C, H, W]; the result has its shape, in the dtype that autocast gives."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_norm(kind: Norm, channels: int, eps: float = 1e-5, *, groups: int | None = None) -> nn.Module:
    """A layer that normalises `channels` channels.

    Args:
        kind: Which; see :data:`Norm`.
        channels: C of its input [B, C, H, W].
        eps: Added to the variance.
        groups: Of group normalisation. detectron2, maskrcnn-benchmark and mmdetection have 32 (Wu and He, 2018),
            whatever C is. None: 32 too, but fewer where C is below 64 or 32 does not divide it, as in networks that
            are narrower than theirs: a group of one channel is instance normalisation, which loses the channel's mean.

    Raises:
        ValueError: `kind` is not one of :data:`Norm`.
    """
    if kind == "frozen_bn":
        return FrozenBatchNorm2d(channels, eps)
    if kind == "frozen_statistics_bn":
        return FrozenBatchNorm2d(channels, eps, affine=True)
    if kind == "bn":
        return nn.BatchNorm2d(channels, eps)
    if kind == "sync_bn":
        return SyncBatchNorm2d(channels, eps)
    if kind == "gn":
        if groups is None:
            groups = 32 if channels % 32 == 0 and channels >= 64 else math.gcd(32, max(channels // 2, 1))
        return nn.GroupNorm(groups, channels, eps)
    raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {kind!r}")


def has_constant_statistics(norm: nn.Module) -> TypeGuard[FrozenBatchNorm2d]:
    """Whether `norm` is, at this moment, a fixed affine map per channel.

    That is :class:`FrozenBatchNorm2d`, and `nn.BatchNorm2d` (or `nn.SyncBatchNorm`) in `eval()`, which has the same
    attributes.
    """
    if isinstance(norm, _BatchNorm):
        return not norm.training and norm.track_running_stats and norm.affine
    return isinstance(norm, FrozenBatchNorm2d)


def affine_map(norm: FrozenBatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The affine map that a batch normalisation with constant statistics is: y = x * scale + shift.

    Args:
        norm: A layer that :func:`has_constant_statistics`.
        dtype: Of the shift.

    Returns:
        Scale [C] in float32 at least and shift [C], differentiable in `weight` and `bias`.
    """
    known = None if torch.compiler.is_compiling() else _MAPS.get()
    if not known or norm not in known:
        scale, shift = _affine_map([norm])
        return scale, shift.to(dtype)
    scale, shift, rounded = known[norm]
    return scale, rounded if rounded.dtype == dtype else shift.to(dtype)


def _affine_map(norms: Sequence[FrozenBatchNorm2d]) -> tuple[Tensor, Tensor]:
    """The maps of norms of one epsilon, one after the other."""
    weight, bias, mean, variance = (
        _joined([getattr(norm, name) for norm in norms]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight * (variance + norms[0].eps).rsqrt()  # [C of all norms together]
    return scale, torch.addcmul(bias, mean, scale, value=-1)


def _joined(tensors: list[Tensor]) -> Tensor:
    joined = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


_MAPS: ContextVar[Mapping[nn.Module, tuple[Tensor, Tensor, Tensor]] | None] = ContextVar("_MAPS", default=None)
"""Of norms whose maps were computed together: scale, shift, and the shift as autocast rounds it."""


@contextmanager
def affine_maps(network: nn.Module, x: Tensor) -> Iterator[None]:
    """A block, such as a forward pass, for which the constant affine maps of a network are computed together.

    A dozen operators in place of five for each layer, which is what a step on a few images waits for.

    Args:
        network: What has :class:`FrozenBatchNorm2d` inside; other layers do not count.
        x: Its input, [B, 3, H, W], of which device and autocast count.
    """
    if torch.compiler.is_compiling():  # which sees through all of this, and does not know context variables
        yield
        return
    groups: dict[Any, list[FrozenBatchNorm2d]] = {}
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d) and not module.affine:
            groups.setdefault((module.eps, module.weight.device, module.weight.dtype), []).append(module)
    maps: dict[nn.Module, tuple[Tensor, Tensor, Tensor]] = {}
    for (_, _, dtype), norms in groups.items():
        scale, shift = _affine_map(norms)
        sizes = [norm.channels for norm in norms]
        parts = (part.split(sizes) for part in (scale, shift, shift.to(_compute_dtype(x, dtype))))
        maps |= zip(norms, zip(*parts, strict=True), strict=True)
    with _known(maps):
        yield


@contextmanager
def _known(maps: Mapping[nn.Module, tuple[Tensor, Tensor, Tensor]] | None) -> Iterator[None]:
    token = _MAPS.set(maps)
    try:
        yield
    finally:
        _MAPS.reset(token)


def same_maps() -> Callable[[], AbstractContextManager[None]]:
    """Makes blocks for later, in any thread, in which the maps are known that :func:`affine_maps` has computed now."""
    return partial(_known, _MAPS.get())


def _compute_dtype(x: Tensor, dtype: torch.dtype) -> torch.dtype:
    """What autocast makes of weights of `dtype`."""
    autocast = torch.is_autocast_enabled(x.device.type) and dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if autocast else dtype


class _Scaled(torch.autograd.Function):
    """`(weight * scale).to(dtype)` for a constant scale: one pass over the weights, and one over their gradient."""

    @staticmethod
    def forward(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.mul(weight, scale, out=torch.empty_like(weight, dtype=dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - the name is torch's
        weight, scale, _ = inputs
        ctx.save_for_backward(scale)
        ctx.dtype = weight.dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (scale,), (gradient,) = ctx.saved_tensors, gradients
        return (gradient * scale).to(ctx.dtype), None, None


def folded(convolution: nn.Conv2d | DeformConv2d, norm: FrozenBatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that a convolution and a constant affine map after it are.

    Args:
        convolution: Of any groups, with or without a bias.
        norm: What :func:`has_constant_statistics`, of its output.
        dtype: Of the result.

    Returns:
        Weight [O, C / groups, height, width] and bias [O].
    """
    weight, bias = convolution.weight, convolution.bias
    scale, shift = affine_map(norm, dtype if bias is None else torch.promote_types(dtype, torch.float32))
    if bias is not None:
        shift = (shift + bias * scale).to(dtype)
    factor = scale.view(-1, 1, 1, 1)  # [O, 1, 1, 1]
    if scale.requires_grad or dtype == torch.promote_types(weight.dtype, scale.dtype) or torch.compiler.is_compiling():
        return (weight * factor).to(dtype), shift
    return cast(Tensor, _Scaled.apply(weight, factor, dtype)), shift


def convolve_and_normalize(x: Tensor, convolution: nn.Conv2d | DeformConv2d, norm: nn.Module) -> Tensor:
    """`norm(convolution(x))`, as one convolution wherever the statistics of `norm` are constant.

    Then (see :func:`has_constant_statistics`) `(w * x) * scale + shift == (w * scale) * x + shift` is computed by the
    right side: the pass over the activations becomes a multiplication of the weights. It is exact up to rounding,
    autograd gives the gradients of `w` and of a trained affine, and there is no graph where nothing is trained.
    Folding happens in float32 and is rounded once, to autocast's dtype or that of the weights.

    Args:
        x: [B, C, H, W].
        convolution: A convolution with zero padding, or a deformable one.
        norm: The normalisation of its output.

    Returns:
        [B, O, H, W] with the convolution's output channels O and size.
    """
    if not has_constant_statistics(norm):
        return norm(convolution(x))
    dtype = convolution.weight.dtype
    if isinstance(convolution, DeformConv2d):
        return convolution.convolve(x, *folded(convolution, norm, dtype))
    # Its own way, which a subclass may have changed.
    return convolution._conv_forward(x, *folded(convolution, norm, _compute_dtype(x, dtype)))
