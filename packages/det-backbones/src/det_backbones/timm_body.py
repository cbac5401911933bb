"""Networks of timm (pytorch-image-models) as bodies of detectors: those with a pyramid of features, and plain ViTs.

Legend: `B` images, `C` channels, `H, W` height and width of the input.
"""

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from det_backbones.folding import Normalized
from det_backbones.norm import Norm
from det_backbones.pairs import ExclusivePairs
from det_backbones.pixels import TORCHVISION_PIXELS, PixelConfig
from det_backbones.window_masks import keep_masks

STRIDES = (4, 8, 16, 32)
"""Of the features that a pyramid is built on, in pixels of the input."""
PLAIN_STRIDE = 16
"""Of the only feature of a plain vision transformer."""

_PROBE = (128, 192)
"""Height and width of the image on which a new network is measured: not a square, and all strides divide it."""

_LISTED = 3  # similar names in a message


class TimmBody(Normalized):
    """A network of timm without its classifier; see :func:`timm_backbone`, which builds it.

    Attributes:
        name: The network's name in timm.
        network: timm's own module, under whose names (`network.stem_0.weight`, ...) the parameters are stored.
        out_channels: Channels of the features of strides 4, 8, 16, 32, or of a plain transformer's one of stride 16.
        strides: These strides in pixels of the input.
        pixels: The input that timm's weights expect.
        freeze_at: How many parts, counted from the input, are constant.
    """

    def __init__(
        self, name: str, network: nn.Module, layers: Sequence[Sequence[str]], norm: Norm, freeze_at: int
    ) -> None:
        super().__init__()
        info = cast(Any, network).feature_info
        reductions = list(info.reduction())
        plain = set(reductions) == {PLAIN_STRIDE}
        self.strides = (PLAIN_STRIDE,) if plain else STRIDES
        if not set(self.strides) <= set(reductions):
            raise ValueError(
                f"timm/{name} gives features of strides {_list(reductions)}, and a pyramid needs {_list(STRIDES)}, or "
                f"{PLAIN_STRIDE} alone; choose a network whose stages each halve the size, such as "
                f"timm/convnextv2_atto, or a plain transformer with patches of {PLAIN_STRIDE} pixels"
            )
        self.name = name
        self.network = network
        keep_masks(network)
        # Where two features have one stride, the later one has seen more.
        self.levels = tuple(len(reductions) - 1 - reductions[::-1].index(stride) for stride in self.strides)
        self.out_channels = tuple(info.channels()[level] for level in self.levels)
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")).rpartition(".")[2] == "NHWC"
        self.pixels = _pixels(network)
        self.norm = norm
        self.freeze_at = freeze_at
        self.layers = tuple(tuple(f"network.{parameter}" for parameter in layer) for layer in layers)
        self.pairs = self._measure()
        self._freeze()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Give the features of four stages, or the last one of a plain transformer.

        Args:
            x: [B, 3, H, W], normalised as `pixels` says. Every network takes H and W that 32 divides; some take
                others, and round to either side.

        Returns:
            [B, C, H / s, W / s] for each, of `out_channels` and `strides`.
        """
        features = self.network(x)
        chosen = [features[level] for level in self.levels]
        return [feature.permute(0, 3, 1, 2) for feature in chosen] if self.channels_last else chosen

    def normalized(self) -> Iterator[tuple[str, str]]:
        """See :func:`~det_backbones.fold_norms`: pairs that were measured when the network was built."""
        yield from self.pairs

    def layer_groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the parameters of each layer from the input on, in timm's division of the network.

        It is finer than stages: each block of a ConvNeXt is a layer.
        """
        return self.layers

    def converted(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """What timm makes of the weights of a plain transformer that are not under its names or of its size.

        Args:
            arrays: By name, as their file has them.

        Returns:
            By timm's names, or None where it makes nothing of them.
        """
        model: Any = getattr(self.network, "model", None)
        convert = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
        if convert is None:
            return None
        try:
            return convert(dict(arrays), model)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):  # it looks for what it knows
            return None

    def train(self, mode: bool = True) -> "TimmBody":
        """Set the mode of all but what is constant, which stays in `eval()`: its statistics, and its random depth."""
        super().train(mode)
        for name in self.constant:
            self.get_submodule(name).eval()
        return self

    def _measure(self) -> tuple[tuple[str, str], ...]:
        """Refuses features that are not of their sizes; returns which convolutions have a batch norm of their own."""
        device = next(self.parameters()).device
        training = self.training
        self.constant: tuple[str, ...] = ()
        try:
            with torch.no_grad(), ExclusivePairs(self.eval()) as pairs:
                features = self(torch.zeros(1, 3, *_PROBE, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"timm/{self.name} does not take images of {_PROBE[0]} x {_PROBE[1]} pixels ({_first_line(error)}); "
                f"a detector needs a network for every size that 32 divides"
            ) from error
        finally:
            self.train(training)
        for feature, channels, stride in zip(features, self.out_channels, self.strides, strict=True):
            expected = (1, channels, _PROBE[0] // stride, _PROBE[1] // stride)
            if feature.shape != expected:
                raise ValueError(
                    f"timm/{self.name} gives a feature {_size(feature.shape)} where it declares {channels} channels of "
                    f"stride {stride}, {_size(expected)} for an image of {_PROBE[0]} x {_PROBE[1]} pixels; "
                    f"choose another network"
                )
        return pairs.found()

    def _freeze(self) -> None:
        for name in self._frozen_parameters():
            self.get_parameter(name).requires_grad_(False)
        constant = []
        for name, module in self.named_modules():
            own = list(module.parameters())
            if name and own and not any(parameter.requires_grad for parameter in own):
                constant.append(name)
            elif isinstance(module, _BatchNorm) and self.norm != "bn":
                module.requires_grad_(self.norm == "frozen_statistics_bn")
                constant.append(name)
        self.constant = tuple(constant)
        self.train(self.training)

    def _frozen_parameters(self) -> set[str]:
        if self.freeze_at == 0:
            return set()
        if self.freeze_at == 5:
            return self._below(self.levels[-1])
        if self.freeze_at > 1 and len(self.levels) == 1:
            raise ValueError(
                f"timm/{self.name} has one stage: freeze_at must be 0 (nothing), 1 (the patches' embedding) or 5 "
                f"(everything), got {self.freeze_at}; layer_decay is what fine-tunes it gently"
            )
        if self.freeze_at > 1:
            return self._below(self.levels[self.freeze_at - 2])
        if not self.layers:
            raise ValueError(
                f"timm does not say what the stem of {self.name} is; freeze_at must be 0, or 2 to 5, got 1"
            )
        return set(self.layers[0])

    def _below(self, level: int) -> set[str]:
        """Names of the parameters on which a feature depends."""
        names, parameters = zip(*self.named_parameters(), strict=True)
        training = self.training
        with torch.enable_grad():
            feature = self.eval().network(torch.zeros(1, 3, *_PROBE, device=parameters[0].device))[level]
            gradients = torch.autograd.grad(feature.sum(), parameters, allow_unused=True)
        self.train(training)
        return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def timm_backbone(name: str, *, norm: Norm = "frozen_bn", freeze_at: int = 0, **options: Any) -> TimmBody:
    """Build a network of timm as the body of a detector, randomly initialised; needs `det-backbones[timm]`.

    Any network of `timm.list_models()` serves that gives features (`features_only`) of strides 4, 8, 16 and 32 for
    images of every size that 32 divides, and so does a plain vision transformer (ViT, DeiT, DINOv2, DINOv3, SAM's),
    for a :class:`SimplePyramid`; where its patches are of 14 pixels, they become 16. It is measured once, on an image
    of 128 x 192 pixels, and refused where its features are not what it declares.
    :func:`~det_backbones.load_imagenet_weights` reads timm's weights from a file; nothing is fetched.

    Args:
        name: Of the network, with or without "timm/" before it: "timm/convnextv2_atto".
        norm: What is done with batch normalisation, where the network has it: "frozen_bn", all constant;
            "frozen_statistics_bn", statistics constant and affine trained; "bn", statistics of the batch. Other
            normalisation is trained.
        freeze_at: Parts that are constant, as in :func:`~det_backbones.resnet`. 0: none; 1: the stem, which is timm's
            first layer; 2: all that the feature of stride 4 depends on; 3: all that the feature of stride 8 does; 4:
            stride 16; 5: everything. A plain transformer knows 0, 1 and 5.
        **options: Passed on to `timm.create_model`, such as `drop_path_rate=0.1`.

    Raises:
        ImportError: timm is not installed.
        ValueError: There is no such network, it gives no such features, or an argument is outside the values above.
    """
    if norm not in ("frozen_bn", "frozen_statistics_bn", "bn"):
        raise ValueError(f"norm of a network of timm must be frozen_bn, frozen_statistics_bn or bn, got {norm!r}")
    if not 0 <= freeze_at <= 5:
        raise ValueError(
            f"freeze_at must be 0 (nothing), 1 (stem), 2 (stem and first stage), ... or 5, got {freeze_at}"
        )
    timm = _timm()
    name = name.removeprefix("timm/")
    if not timm.is_model(name):
        similar = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), _LISTED)
        hint = f"; similar ones are {', '.join(similar)}" if similar else ""
        raise ValueError(f"timm {timm.__version__} has no network {name!r}{hint}")
    network = _create(timm, name, features_only=True, **options)
    if set(cast(Any, network).feature_info.reduction()) == {14} and "patch_size" not in options:
        options["patch_size"] = PLAIN_STRIDE
        network = _create(timm, name, features_only=True, **options)
    return TimmBody(name, network, _layers(timm, name, network, options), norm, freeze_at)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "Backbones timm/... need timm, which is not installed: pip install 'det-backbones[timm]'"
        ) from error
    return timm


def _create(timm: Any, name: str, **options: Any) -> nn.Module:
    # Transformers are built for one size unless they are told otherwise; the others know no such option.
    any_size = {"strict_img_size": False}
    for further in (any_size | {"always_partition": True}, any_size, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(name, pretrained=False, **further, **options)
        except TypeError as error:
            failure: Exception = error
        except (AssertionError, AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
            failure = error
            break
    raise ValueError(f"timm/{name} cannot be built as the body of a detector: {_first_line(failure)}") from failure


def _layers(timm: Any, name: str, network: nn.Module, options: dict[str, Any]) -> list[list[str]]:
    """Names of the parameters of `network` in each layer, as timm divides the classifier that it is the body of."""
    from timm.models import group_parameters

    with torch.random.fork_rng(devices=[]):
        whole: Any = _create(timm, name, **options)
    if not hasattr(whole, "group_matcher"):
        return []
    numbers: Any = group_parameters(whole, whole.group_matcher(coarse=False), reverse=True)
    number_of = {flat(parameter): number for parameter, number in numbers.items()}
    layers: dict[int, list[str]] = {}
    for parameter, _ in network.named_parameters():
        if flat(parameter) in number_of:
            layers.setdefault(number_of[flat(parameter)], []).append(parameter)
    return [layers[number] for number in sorted(layers)]


def flat(name: str) -> str:
    """A parameter's name in a form that the classifier and the network of its features have in common.

    timm takes its networks apart for their features, so that `stages.0.x` becomes `stages_0.x`, or `model.stages.0.x`.
    """
    return name.removeprefix("model.").replace(".", "_")


def _pixels(network: nn.Module) -> PixelConfig:
    config: Any = getattr(network, "pretrained_cfg", {})
    said: Any = {name: tuple(config[name]) for name in ("mean", "std") if name in config}
    return replace(TORCHVISION_PIXELS, **said)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[1:]))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__
