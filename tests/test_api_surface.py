"""The public names of every package, held against an inventory.

A name that vanishes, or one that becomes public without anybody meaning it, breaks those who import the package long
after the change. So each change of the surface has to be written into the inventory in the same commit:

    hatch run python tests/test_api_surface.py
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

INVENTORY = Path(__file__).with_name("api_surface.json")
MODULES = (
    "det_ops",
    "det_ops.npu_check",
    "det_backbones",
    "det_heads",
    "det_models",
    "det_models.checkpoints",
    "det_coco",
    "det_coco.augment",
    "det_coco.report",
    "det_engine",
    "det_engine.checkpoint",
    "det_engine.cli",
    "det_engine.options",
)


def surface(module: str) -> dict[str, str]:
    """What is public in a module: {name: the parameters of a function or class, or the type of a value}."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module
    ]
    return {name: _describe(getattr(found, name)) for name in sorted(names) if name != "__version__"}


def _describe(value: object) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return "exception"
    if inspect.isclass(value) or inspect.isfunction(value):
        # Names and order of the parameters; annotations and defaults may be refined freely.
        marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        shown, keyword_only = [], False
        for parameter in inspect.signature(value).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
                keyword_only = True
                shown.append("*")
            optional = "" if parameter.default is parameter.empty else "="
            shown.append(f"{marks.get(parameter.kind, '')}{parameter.name}{optional}")
        return f"({', '.join(shown)})"
    return "module" if inspect.ismodule(value) else "value"


@pytest.mark.parametrize("module", MODULES)
def test_the_public_names_are_those_of_the_inventory(module):
    recorded, found = json.loads(INVENTORY.read_text(encoding="utf-8"))[module], surface(module)
    gone = sorted(recorded.keys() - found.keys())
    new = sorted(found.keys() - recorded.keys())
    changed = [f"{name}{recorded[name]} -> {found[name]}" for name in recorded if found.get(name, "") != recorded[name]]
    assert recorded == found, (
        f"{module}: gone {gone}, new {new}, changed {[line for line in changed if line.split('(')[0] not in gone]}; "
        f"if that is meant, run `hatch run python tests/{Path(__file__).name}` and commit {INVENTORY.name}"
    )


@pytest.mark.parametrize("module", MODULES)
def test_public_functions_and_classes_are_documented(module):
    found = importlib.import_module(module)
    undocumented = [
        name
        for name in surface(module)
        if (inspect.isclass(value := getattr(found, name)) or inspect.isfunction(value)) and not value.__doc__
    ]
    assert not undocumented


if __name__ == "__main__":
    inventory = {module: surface(module) for module in MODULES}
    INVENTORY.write_text(json.dumps(inventory, indent=2) + "\n", encoding="utf-8")
