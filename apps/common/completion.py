"""``completion``: what a shell needs to complete commands, options and recipes."""

from collections.abc import Iterable

import tyro

from apps.common.app import App
from apps.common.augmentations import AugmentationsOptions
from apps.common.benchmark import BenchmarkOptions
from apps.common.check import CheckOptions
from apps.common.convert import ConvertOptions
from apps.common.evaluate import EvalOptions
from apps.common.export import ExportOptions
from apps.common.predict import PredictOptions
from apps.common.replay import ReplayOptions
from apps.common.report import ReportOptions
from apps.common.sweep import SweepOptions
from apps.common.train import TrainOptions
from det_engine.cli import UsageError
from det_engine.options import option_names

_SCRIPT = """\
# bash: source this file, or put it into ~/.local/share/bash-completion/completions/hatch
# zsh: autoload -U bashcompinit && bashcompinit, then source it
_det_{app}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words
    if [ "$COMP_CWORD" -eq 3 ]; then
        words="{commands}"
    elif [ "${{COMP_WORDS[COMP_CWORD - 1]}}" = --recipe ]; then
        words="{recipes}"
    else
        case ${{COMP_WORDS[3]}} in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
_det_hatch() {{
    local app=${{COMP_WORDS[2]#apps/}}
    if [ "$COMP_CWORD" -gt 2 ] && declare -F "_det_$app" > /dev/null; then "_det_$app"; fi
}}
complete -o default -o bashdefault -F _det_hatch hatch
"""


def show_completion(app: App, args: list[str], commands: Iterable[str]) -> None:
    """Print a script for bash and zsh.

    Args:
        app: whose.
        args: none.
        commands: names of all of them.

    Raises:
        UsageError: there are arguments.
    """
    if args:
        raise UsageError("completion takes no arguments; its output is a script for bash and zsh.")
    cases = [f'            {name}) words="{" ".join(names)}" ;;' for name, names in options_of(app).items()]
    print(
        _SCRIPT.format(
            app=app.name, commands=" ".join(commands), recipes=" ".join(app.recipes), cases="\n".join(cases)
        ),
        end="",
    )


def options_of(app: App) -> dict[str, list[str]]:
    """The options of an app's commands; of those that take a recipe's fields those of its first."""
    recipe = next(iter(app.recipes.values()))()
    options = {
        "train": TrainOptions(recipe=recipe.name, values=recipe),
        "sweep": SweepOptions(),
        "eval": EvalOptions(weights=tyro.MISSING),
        "predict": PredictOptions(inputs=(), weights=tyro.MISSING),
        "augmentations": AugmentationsOptions(recipe=recipe.name, values=recipe),
        "benchmark": BenchmarkOptions(recipe=recipe.name, config=recipe),
        "check": CheckOptions(recipe=recipe.name),
        "convert": ConvertOptions(out=tyro.MISSING, weights=tyro.MISSING, to=tyro.MISSING),
        "export": ExportOptions(out=tyro.MISSING, weights=tyro.MISSING),
        "report": ReportOptions(run=tyro.MISSING),
        "replay": ReplayOptions(file=tyro.MISSING),
    }
    names = {name: option_names(value) for name, value in options.items()}
    return names | {"sweep": list(dict.fromkeys([*names["sweep"], *names["train"]]))}
