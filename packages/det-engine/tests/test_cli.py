import dataclasses
import errno
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from det_engine import EngineError, Interrupted, launching
from det_engine.cli import UsageError, dispatch, nearest, run_main, take_option, unknown
from det_engine.options import keep_explicit, option_names, override


@dataclass(frozen=True, kw_only=True, slots=True)
class Solver:
    """How it learns.

    Attributes:
        base_lr: learning rate.
    """

    base_lr: float = 0.02
    milestones: tuple[int, ...] = (60, 80)
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.base_lr < 0:
            raise ValueError(f"base_lr must not be negative, got {self.base_lr}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    size: int = 28
    """Pixels of a side, of which
    there are two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    name: str = "base"
    solver: Solver = field(default_factory=Solver)
    mask: Mask | None = None
    norm: Literal["bn", "gn"] = "bn"
    deep: bool = False
    scales: tuple[tuple[int, int], ...] = ((32, 64),)
    weights: tuple[float, float] = (1.0, 2.0)
    output: Path | None = None


RECIPE = Recipe(name="mine", mask=Mask(size=14), solver=Solver(base_lr=0.5))


def test_nothing_changes_without_arguments():
    assert override(RECIPE, [], "app train") == RECIPE


def test_fields_are_overridden_and_the_others_stay_the_recipes():
    args = "--solver.milestones 1 2 3 --solver.clip-norm 10 --mask.size 7 --norm gn --deep True --output a/b"
    changed = override(RECIPE, [*args.split(), "--scales", "1", "2", "3", "4", "--weights", "0.5", "0.25"], "app train")
    assert changed == Recipe(
        name="mine",
        solver=Solver(base_lr=0.5, milestones=(1, 2, 3), clip_norm=10.0),
        mask=Mask(size=7),
        norm="gn",
        deep=True,
        scales=((1, 2), (3, 4)),
        weights=(0.5, 0.25),
        output=Path("a/b"),
    )
    assert type(changed) is Recipe
    assert override(changed, ["--solver.clip-norm", "None"], "app train").solver.clip_norm is None


@pytest.mark.parametrize("spelling", [["--solver.base-lr=0.25"], ["--solver.base_lr", "0.25"]])
def test_spellings(spelling):
    assert override(RECIPE, spelling, "app train").solver.base_lr == 0.25


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            "--solver.basel-lr 0.1",
            "Unknown option --solver.basel-lr. Did you mean --solver.base-lr? See app train --help.",
        ),
        ("--base-lr 0.1", "Unknown option --base-lr. Did you mean --solver.base-lr? See app train --help."),
        ("--lr 0.1", "Unknown option --lr. Did you mean --solver.base-lr? See app train --help."),
        ("--solvr.milestones=3", "Unknown option --solvr.milestones. Did you mean --solver.milestones? See app"),
        ("--xyzzyq 1", "Unknown option --xyzzyq. See app train --help."),
        ("picture.jpg", "Unexpected argument 'picture.jpg'. Options begin with --; see app train --help."),
        ("--norm gm", "Option --norm takes one of bn, gn, got 'gm'. See app train --help."),
        ("--solver.base-lr fast", "Option --solver.base-lr takes a number, got 'fast'."),
        ("--solver.base_lr=fast", "Option --solver.base-lr takes a number, got 'fast'."),
        ("--solver.base-lr", "Option --solver.base-lr takes a number, got nothing."),
        ("--solver.clip-norm high", "Option --solver.clip-norm takes a number or None, got 'high'."),
        ("--solver.milestones 3 b", "Option --solver.milestones takes whole numbers, got '3 b'."),
        ("--solver.base-lr -1", "Option --solver.base-lr must not be negative, got -1.0. See app train --help."),
        ("--norm gm picture.jpg", "Option --norm takes one of bn, gn, got 'gm'."),
        ("--deep yes", "Option --deep takes True or False, got 'yes'."),
        ("--weights 1", "Option --weights takes 2 numbers, got '1'."),
    ],
)
@pytest.mark.parametrize("drawn", [False, True])
def test_wrong_options_give_one_message(args, message, drawn, capsys, monkeypatch):
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", drawn, raising=False)
    with pytest.raises(UsageError) as error:
        override(RECIPE, args.split(), "app train")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_help_shows_the_recipes_values(capsys):
    with pytest.raises(SystemExit) as ended:
        override(RECIPE, ["--help"], "app train", description="Train.")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--solver.base-lr" in text
    assert "learning rate." in text
    assert "0.5" in text


FIRST = ("--norm", "--solver.base-lr")


def help_page(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        override(RECIPE, ["--help", *args], "app train", description="Train.", first=FIRST)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_begins_with_a_few_options_and_the_sections(capsys):
    text = help_page(capsys)
    assert [name for name in option_names(RECIPE) if f"{name} " in text] == list(FIRST)
    assert "learning rate." in text
    assert "0.5" in text
    assert "solver     3  How it learns." in text
    assert "general    6\n" in text


@pytest.mark.parametrize("section", ["solver", "mask", "general", "all"])
def test_help_of_a_section_shows_its_options_only(section, capsys):
    text = help_page(capsys, section)
    shown = [name for name in option_names(RECIPE) if f"{name} " in text]
    own = [name for name in option_names(RECIPE) if section == "all" or name.startswith(f"--{section}.")]
    assert shown == (own or [name for name in option_names(RECIPE) if "." not in name])
    assert "Sections" not in text


def test_help_breaks_a_text_where_the_page_ends_alone(capsys):
    """Not where the source has a line break."""
    assert "Pixels of a side, of which there are two. (default: 14)" in help_page(capsys, "mask")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    pictures: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Pictures to draw on, see :class:`~elsewhere.Drawing` or ``there``."""
    colour: str = "red"
    width: int = 1


def test_short_help_has_the_arguments_without_a_name(capsys):
    with pytest.raises(SystemExit):
        override(Drawing(), ["--help"], "app draw", first=("--colour",))
    text = " ".join(capsys.readouterr().out.split())
    assert "Pictures to draw on, see `elsewhere.Drawing` or `there`." in text
    assert "--colour STR" in text
    assert "--width" not in text


def test_help_of_an_unknown_section_names_the_nearest():
    with pytest.raises(UsageError, match=r"Unknown section 'solvr'. Did you mean 'solver'\?"):
        override(RECIPE, ["--help", "solvr"], "app train", first=FIRST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Short:
    precision: str = field(default="fp32", metadata={"aliases": ("--precision",)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Long:
    train: Short = field(default_factory=Short)
    sizes: tuple[tuple[float, ...], ...] = ((1.0,), (2.0, 3.0))


def test_aliases_and_tuples_of_tuples():
    for args in (["--precision", "bf16"], ["--precision=bf16"], ["--train.precision", "bf16"]):
        assert override(Long(), args, "app").train.precision == "bf16"
    assert option_names(Long()) == ["--sizes.0", "--sizes.1", "--train.precision"]
    assert override(Long(), ["--sizes.1", "5", "6"], "app").sizes == ((1.0,), (5.0, 6.0))


def test_what_was_given_stays_where_values_are_fitted():
    args = ["--solver.clip_norm=3", "--solver.base-lr", "0.5", "--norm", "gn"]
    parsed = override(RECIPE, args, "app").solver
    fitted = dataclasses.replace(RECIPE.solver, base_lr=0.01, milestones=(6, 8))
    kept = keep_explicit(fitted, parsed, "solver", args)
    assert kept == Solver(base_lr=0.5, milestones=(6, 8), clip_norm=3.0)


def test_options_need_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(EngineError, match=r"pip install 'det-engine\[cli\]'"):
        override(RECIPE, [], "app")
    code = "import sys; sys.modules['tyro'] = None; import det_engine, det_engine.cli, det_engine.options"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("command", ["[print(i) for i in range(10**6)]", "print('once')", "sys.exit(print('last'))"])
def test_a_reader_that_has_left_is_no_error(command):
    code = f"import sys; from det_engine.cli import run_main; sys.exit(run_main(lambda: {command} and None))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [("EngineError('The disk is full.')", 2, "The disk is full."), ("Interrupted(15, 3, None)", 143, "step 3")],
)
def test_what_went_wrong_is_said_though_the_reader_has_left(error, status, says):
    code = (
        "import sys; from det_engine.cli import run_main; from det_engine.errors import EngineError, Interrupted\n"
        f"def main():\n    print('much')\n    raise {error}\n"
        "sys.exit(run_main(main))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # else printing itself fails
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(writing)
    assert done.returncode == status
    assert says in done.stderr


@dataclass(frozen=True, kw_only=True)
class Options:
    data: str = "coco"
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


def test_option_names():
    own = ["--name", "--norm", "--deep", "--scales", "--weights", "--output"]
    solver = ["--solver.base-lr", "--solver.milestones", "--solver.clip-norm"]
    assert option_names(RECIPE) == [*own, *solver, "--mask.size"]
    assert option_names(Options(recipe=RECIPE)) == ["--data", *own, *solver, "--mask.size"]
    with pytest.raises(UsageError, match=r"--slver\.base-lr. Did you mean --solver\.base-lr\?"):
        override(Options(recipe=RECIPE), ["--slver.base-lr", "1"], "app train")


def test_take_option():
    assert take_option(["--a", "1", "--recipe", "x", "--b"], "recipe") == ("x", ["--a", "1", "--b"])
    assert take_option(["--recipe=x", "--recipe=y"], "recipe") == ("y", [])
    assert take_option(["--a"], "recipe", "tiny") == ("tiny", ["--a"])
    for args in (["--recipe"], ["--recipe", "--a"]):
        with pytest.raises(UsageError, match="Option --recipe needs a value"):
            take_option(args, "recipe")


def test_names_near_and_far():
    recipes = ["mask_rcnn_r50_fpn_1x", "mask_rcnn_r101_fpn_1x", "tiny"]
    assert str(unknown("recipe", "mask_rcnn_r50_fnp_1x", recipes)) == (
        "Unknown recipe 'mask_rcnn_r50_fnp_1x'. Did you mean 'mask_rcnn_r50_fpn_1x'? There are: "
        "mask_rcnn_r50_fpn_1x, mask_rcnn_r101_fpn_1x, tiny."
    )
    assert "Did you mean" not in str(unknown("recipe", "zzz", recipes))
    assert nearest("anything", []) is None


def train_command(args):
    """Train a model.

    At length.
    """
    print("args", args)
    return 0


@pytest.mark.parametrize(
    ("args", "named"), [(["--data", "", "--a", "1"], "--data"), (["--data="], "--data"), ([""], "train")]
)
def test_an_empty_argument_is_no_path(args, named):
    """An unset variable of a shell would be the current folder."""
    with pytest.raises(UsageError, match=f"The argument after {named} is empty"):
        dispatch({"train": print}, ["train", *args], "app")


def test_dispatch(capsys):
    commands = {"train": train_command, "eval": lambda args: 7}
    assert dispatch(commands, ["train", "--a", "1"], "app") == 0
    assert dispatch(commands, ["eval"], "app") == 7
    assert "args ['--a', '1']" in capsys.readouterr().out
    for args in ([], ["--help"], ["-h"]):
        assert dispatch(commands, args, "app") == 0
        assert "  train  Train a model.\n  eval\n" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"Unknown command 'trian'. Did you mean 'train'\?"):
        dispatch(commands, ["trian"], "app")


def failing(error):
    def main():
        raise error

    return main


class DataError(ValueError):
    pass


@pytest.mark.parametrize(
    ("main", "status", "message"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (failing(EngineError("no such thing.")), 2, "error: no such thing.\n"),
        (failing(UsageError("wrong option.")), 2, "error: wrong option.\n"),
        (failing(DataError("bad data.")), 2, "error: bad data.\n"),
        (failing(KeyboardInterrupt()), 130, "interrupted\n"),
        (failing(Interrupted(signal.SIGINT, 5, None)), 130, "interrupted after step 5\n"),
        (failing(Interrupted(signal.SIGTERM, 5, Path("x.pt"))), 143, "interrupted after step 5; checkpoint: x.pt\n"),
    ],
)
def test_statuses(main, status, message, capsys, monkeypatch):
    monkeypatch.delenv("DET_DEBUG", raising=False)
    assert run_main(main, (DataError,)) == status
    assert capsys.readouterr().err == message


def test_errors_of_the_program_itself_are_not_hidden():
    with pytest.raises(ValueError, match="ours"):
        run_main(failing(ValueError("ours")), (DataError,))


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyError("ours"), 1, "error: KeyError: 'ours'\n"),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "x"),
            1,
            "error: FileNotFoundError: [Errno 2] No such file: 'x'\n",
        ),
        (EngineError("no such thing."), 2, "error: no such thing.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit("no more."), 1, "error: no more.\n"),
        (SystemExit(3), 3, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_every_end_of_one_of_several_processes_is_by_leave(error, status, message, capsys, monkeypatch):
    left = []
    monkeypatch.setattr(launching, "world_size", lambda: 2)
    monkeypatch.setattr(launching, "leave", left.append)
    assert run_main(failing(error)) == status
    assert left == [status]
    assert capsys.readouterr().err.endswith(message)


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "DET_DEBUG", "1")
    assert run_main(failing(EngineError("no such thing."))) == 2
    assert "Traceback" in capsys.readouterr().err


def test_options_of_many_sections_are_all_known():
    sections = [(f"section{number}", Solver, Solver()) for number in range(12)]
    default = dataclasses.make_dataclass("Wide", sections, frozen=True)()
    names = option_names(default)
    assert len(names) == 12 * len(dataclasses.fields(Solver))
    with pytest.raises(UsageError, match=r"Did you mean --section7\.base-lr\?"):
        override(default, ["--section7.base-lt", "1"], "app")


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    weights: Path
    batch: int = 1


@pytest.mark.parametrize("args", ["--weigths a.pt", "--weigths=a.pt", "--weigths a.pt --batch many"])
def test_a_misspelt_required_option_is_misspelt_rather_than_missing(args):
    with pytest.raises(UsageError, match=r"^Unknown option --weigths\. Did you mean --weights\?"):
        override(Needs(weights=tyro.MISSING), args.split(), "app eval")


def test_a_required_option_that_is_missing():
    with pytest.raises(UsageError, match=r"--weights"):
        override(Needs(weights=tyro.MISSING), ["--batch", "2"], "app eval")


def test_a_full_disk_is_one_message(capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "pictures/1.png")

    assert run_main(full) == 2
    assert capsys.readouterr().err == "error: Cannot write pictures/1.png: No space left on device.\n"

    def other():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    with pytest.raises(FileNotFoundError):
        run_main(other)


def test_a_truth_value_may_stand_alone():
    assert override(RECIPE, ["--deep", "--norm", "gn"], "app train").deep
    assert override(RECIPE, ["--norm", "gn", "--deep"], "app train").deep
    assert not override(RECIPE, ["--deep", "False"], "app train").deep
