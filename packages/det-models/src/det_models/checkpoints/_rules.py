"""Rename rules: pairs of name templates, read in both directions.

A template is a parameter name with fields in braces. `{block}` stands for a number, `{stage+1}` for the same number one
higher (so that our `layer1` meets detectron2's `res2`), `{3*layer+1}` for one more than three times the number, and
`{tensor}` for the last part of the name, a word. Fields of the same name on both sides stand for the same thing, which
is why a rule can be inverted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from det_models.checkpoints._layouts import SAME, Layout

_FIELD = re.compile(r"\{(?:(\d+)\*)?([a-z]+)([+-]\d+)?\}")
_WORD = "tensor"

Fields = Mapping[str, str | int]


@dataclass(frozen=True)
class Template:
    """A parameter name with fields, e.g. `backbone.bottom_up.res{stage+1}.{block}.conv{conv}.{tensor}`."""

    text: str

    @cached_property
    def _scales(self) -> dict[str, tuple[int, int]]:
        """Factor and shift of each field."""
        return {match[2]: (int(match[1] or 1), int(match[3] or 0)) for match in _FIELD.finditer(self.text)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        pieces = _FIELD.split(self.text)  # literal, factor, field, shift, literal, ..., literal
        pattern = re.escape(pieces[0])
        for field, literal in zip(pieces[2::4], pieces[4::4], strict=True):
            pattern += f"(?P<{field}>{'[a-z_]+' if field == _WORD else '[0-9]+'})" + re.escape(literal)
        return re.compile(pattern)

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields."""
        return frozenset(self._scales)

    def read(self, name: str) -> Fields | None:
        """Values of the fields in `name`, or None where `name` has another form."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        fields: dict[str, str | int] = {}
        for field, text in match.groupdict().items():
            if field == _WORD:
                fields[field] = text
                continue
            factor, shift = self._scales[field]
            fields[field], rest = divmod(int(text) - shift, factor)
            if rest or int(text) < shift:
                return None
        return fields

    def write(self, fields: Fields) -> str:
        """The name which has these values in its fields."""

        def value(match: re.Match[str]) -> str:
            found, (factor, shift) = fields[match[2]], self._scales[match[2]]
            return found if isinstance(found, str) else str(found * factor + shift)

        return _FIELD.sub(value, self.text)


@dataclass(frozen=True)
class Rule:
    """Our name and the reference's name of one kind of tensor, and how their contents differ."""

    ours: Template
    reference: Template
    layout: Layout = SAME

    def __post_init__(self) -> None:
        if self.ours.fields != self.reference.fields:
            raise ValueError(f"both sides of a rule need the same fields: {self.ours.text} | {self.reference.text}")


def rules(ours: str, reference: str, table: str, layouts: Mapping[str, Layout] | None = None) -> tuple[Rule, ...]:
    """Rules for the modules of one part of a model.

    Args:
        ours: What our names in the table begin with.
        reference: What the reference's names in the table begin with.
        table: A module a line: our name, the reference's name (left out where it is the same), and the key of a layout
            where the contents differ. The rule holds for all tensors of the module (weight, bias, running_mean, ...).
        layouts: The layouts which the third column names.
    """
    found = []
    for line in filter(None, map(str.strip, table.splitlines())):
        left, right, layout, *_ = (*line.split(), None, None)
        sides = (Template(f"{ours}{left}.{{tensor}}"), Template(f"{reference}{right or left}.{{tensor}}"))
        found.append(Rule(*sides, (layouts or {})[layout] if layout else SAME))
    return tuple(found)


def to_our_name(table: Sequence[Rule], reference: str) -> tuple[str, Rule] | None:
    """Our name of a reference's tensor and the rule that says so (the first that fits), or None."""
    for rule in table:
        fields = rule.reference.read(reference)
        if fields is not None:
            return rule.ours.write(fields), rule
    return None


def to_reference_name(table: Sequence[Rule], ours: str) -> tuple[str, Rule] | None:
    """The reference's name of our tensor and the rule that says so (the first that fits), or None."""
    for rule in table:
        fields = rule.ours.read(ours)
        if fields is not None:
            return rule.reference.write(fields), rule
    return None
