"""What tells of the commands does not wait for the libraries that the work needs: torch alone takes seconds."""

import importlib
import inspect
import json
import pkgutil

import pytest

from testing.processes import python

HEAVY = {"PIL", "cattrs", "cv2", "det_ops", "hotcoco", "matplotlib", "numpy", "pycocotools", "torch", "torchvision"}
LAZY = ("det_backbones", "det_coco", "det_engine", "det_heads", "det_models")
RUN = """
import json, runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


@pytest.mark.parametrize("app", ["apps.mask_rcnn", "apps.yolact"])
@pytest.mark.parametrize(
    "command", ["--help", "train --help", "eval --help", "check --help", "recipes", "weights r50", "completion"]
)
def test_what_tells_of_commands_loads_nothing_heavy(app, command, tmp_path):
    arguments = command.replace("r50", "yolact").split() if app == "apps.yolact" else command.split()
    assert not loaded(app, *arguments, cache=tmp_path) & HEAVY


def test_the_command_of_the_models_tells_of_itself_without_torch(tmp_path):
    assert not loaded("det_models", "--help", cache=tmp_path) & HEAVY


def loaded(module, *arguments, cache):
    done = python("-c", RUN, module, *arguments, DET_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_a_work_loads_torch():
    """Or the tests above would see nothing."""
    done = python("-c", "import sys, det_models; det_models.build; print('torch' in sys.modules)")
    assert done.stdout == "True\n"


@pytest.mark.parametrize("package", LAZY)
def test_public_names_are_those_of_their_modules(package):
    """A module that has the name of what it defines would take its place once it is imported."""
    module = importlib.import_module(package)
    assert not {info.name for info in pkgutil.iter_modules(module.__path__)} & set(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_the_packages_that_import_nothing_of_ours_have_the_same_way_of_importing_late():
    modules = [importlib.import_module(f"{package}.lazy") for package in ("det_backbones", "det_coco", "det_engine")]
    assert len({inspect.getsource(module) for module in modules}) == 1
