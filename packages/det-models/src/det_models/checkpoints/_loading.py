"""Tensors of a checkpoint into a model, and a table of what became of them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from det_models.checkpoints._exchange import Translation, first, is_counter, translate
from det_models.errors import CheckpointError

_CLASS_HEAD = re.compile(
    r"(box_heads?(\.\d+)?\.(cls_score|bbox_pred)|mask_heads?(\.\d+)?\.predictor"
    r"|head\.classes|semantic|mask_iou\.predictor)\.\w+"
)
_PARTS = (
    (r"backbone\.body\.", "backbone"),
    (r"backbone\.fpn\.", "pyramid"),
    (r"rpn\.", "region proposals"),
    (r"(\w+)_heads?\.", r"\1 head"),
    (r"head\.", "prediction head"),
    (r"protonet\.", "prototypes"),
    (r"semantic\.", "semantic loss"),
    (r"mask_iou\.", "mask IoU"),
    ("", "other"),
)
"""How the names in a part of a network begin, and what the part is called."""


class ClassCountError(CheckpointError):
    """The checkpoint fits, but for the number of classes."""


class ArchitectureError(CheckpointError):
    """The checkpoint is of another network: some of its tensors do not fit."""


@dataclass(frozen=True)
class Report:
    """What became of the tensors of a checkpoint; as text, a table by part of the network.

    Attributes:
        system: Name of the system the checkpoint comes from.
        matched: Our name -> the checkpoint's name, for all tensors that were read.
        ignored: Names in the checkpoint which the program computes by itself, or was told to leave out.
        missing: Our names of tensors which the model has and the checkpoint lacks.
        dropped: Our names of those among them that tell other classes apart, and start at random.
    """

    system: str
    matched: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = [
            Counter(_part(name) for name in names)
            for names in (self.matched, [*self.ignored, *self.dropped], self.missing)
        ]
        parts = sorted({part for column in columns for part in column})
        width = max(len(part) for _, part in parts)
        lines = [f"{'':<{width}}  matched  ignored  missed"]
        for part in parts:
            matched, ignored, missed = (column[part] for column in columns)
            lines.append(f"{part[1]:<{width}}  {matched:>7}  {ignored:>7}  {missed:>6}")
        remarks = {"ignored": self.ignored, "missed": [n for n in self.missing if n not in self.dropped]}
        lines += [f"{title}: {first(names)}" for title, names in remarks.items() if names]
        if self.dropped:
            lines.append(f"dropped, at random instead: {first(self.dropped)}")
        return "\n".join(lines)


def load_reference(
    model: nn.Module,
    state: Mapping[str, Tensor | np.ndarray],
    system: str | None = None,
    *,
    drop_class_head: bool = False,
) -> Report:
    """Load another system's checkpoint into a model of the same architecture.

    The model must be built with the system's conventions, which :func:`det_models.checkpoints.read` finds out.

    Args:
        model: Detector with our parameter names.
        state: As in :func:`det_models.checkpoints.translate`.
        system: As there.
        drop_class_head: As in :func:`load`.

    Raises:
        CheckpointError: As in :func:`load`.
    """
    return load(model, translate(state, system), drop_class_head=drop_class_head)


def load(
    model: nn.Module,
    checkpoint: Translation,
    *,
    drop_class_head: bool = False,
    drop_mismatched: bool = False,
    parts: Sequence[str] = (),
) -> Report:
    """Give a model the tensors of a checkpoint.

    Args:
        model: Detector with our parameter names.
        checkpoint: Its tensors under our names.
        drop_class_head: Leave out the layers that tell classes apart, where the checkpoint has another number of
            classes than the model; they keep what the model was initialised with.
        drop_mismatched: Leave out whatever has another shape, or is in one of the two alone.
        parts: Names of parts to take, as the report has them, with hyphens: `backbone`, `region-proposals`; empty: all.

    Raises:
        ClassCountError: The numbers of classes differ, and `drop_class_head` is not set.
        ArchitectureError: The architectures differ; the message names the first mismatches.
        CheckpointError: There is no such part. In each case the model is unchanged.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    chosen = _names_of(parts, [*checkpoint.tensors, *expected])
    wanted = {name for name in expected if not is_counter(name) and name in chosen}
    found = {
        name: tensor
        for name, tensor in checkpoint.tensors.items()
        if name in chosen and (name in expected or not is_counter(name))
    }
    if drop_mismatched:
        found = {name: tensor for name, tensor in found.items() if expected.get(name) == tuple(tensor.shape)}
        wanted &= found.keys()
    unknown = [name for name in found if name not in expected]
    lacking = sorted((name for name in wanted if name not in found), key=list(expected).index)
    different = [name for name in found if name in expected and tuple(found[name].shape) != expected[name]]
    classes = [name for name in different if _other_classes(name, tuple(found[name].shape), expected[name])]

    def called(name: str) -> str:
        theirs = checkpoint.names.get(name, name)
        return name if theirs == name else f"{name} ({theirs})"

    what = "checkpoint" if checkpoint.system == "ours" else f"{checkpoint.system} checkpoint"
    problems = [f"the model has no {called(name)}" for name in unknown]
    problems += [
        f"the model's {called(name)} is {expected[name]}, the checkpoint's {tuple(found[name].shape)}"
        for name in different
        if name not in classes
    ]
    problems += [f"the checkpoint has no {name}" for name in lacking]
    if problems:
        raise ArchitectureError(
            f"the {what} is of another architecture ({len(problems)} mismatches): " + first(problems, "; ")
        )
    if classes and not drop_class_head:
        name = classes[0]
        raise ClassCountError(
            f"the {what} has another number of classes: the model's {called(name)} is "
            f"{expected[name]}, the checkpoint's {tuple(found[name].shape)}; drop_class_head leaves out "
            + first(classes)
        )
    model.load_state_dict({name: tensor for name, tensor in found.items() if name not in classes}, strict=False)
    left = [name for name in checkpoint.tensors if name not in found]
    taken = {name for name in found if name not in classes}
    return Report(
        system=checkpoint.system,
        matched={name: checkpoint.names[name] for name in taken if name in checkpoint.names},
        ignored=(*checkpoint.ignored, *(checkpoint.names[name] for name in left)),
        missing=tuple(
            name for name in expected if not is_counter(name) and (name not in taken or name not in checkpoint.names)
        ),
        dropped=tuple(classes),
    )


def _other_classes(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return _CLASS_HEAD.fullmatch(name) is not None and found[1:] == expected[1:]


def _names_of(parts: Sequence[str], names: Sequence[str]) -> set[str]:
    """Those names that belong to one of the parts; all without any."""
    if not parts:
        return set(names)
    part_of = {name: _part(name)[1].replace(" ", "-") for name in names}
    there = list(dict.fromkeys(part_of.values()))
    wrong = [part for part in parts if part not in there]
    if wrong:
        raise CheckpointError(f"there is no part {wrong[0]!r}; parts are {', '.join(there)}")
    return {name for name in names if part_of[name] in parts}


def _part(name: str) -> tuple[int, str]:
    """Place in the table, and what is called so there."""
    found = ((place, re.match(pattern, name), part) for place, (pattern, part) in enumerate(_PARTS))
    return next((place, match.expand(part)) for place, match, part in found if match)
