"""``completion``: what a shell needs to complete commands, options and recipes."""

from apps.common.app import App
from apps.common.commands import COMMANDS
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


HELP = """usage: apps/{app} completion

Prints a script with which bash and zsh complete commands, options and recipes.
Switch it on with

  hatch run -q apps/{app} completion >> ~/.det-completion
  source ~/.det-completion

in zsh after `autoload -U bashcompinit && bashcompinit`."""


def show_completion(app: App, args: list[str]) -> None:
    """Print a script for bash and zsh.

    Args:
        app: whose.
        args: none, or --help.

    Raises:
        UsageError: there are arguments.
    """
    if set(args) & {"-h", "--help"}:
        print(HELP.format(app=app.name))
        return
    if args:
        raise UsageError("completion takes no arguments; its output is a script for bash and zsh.")
    cases = [f'            {name}) words="{" ".join(names)}" ;;' for name, names in options_of(app).items()]
    print(
        _SCRIPT.format(
            app=app.name, commands=" ".join(COMMANDS), recipes=" ".join(app.recipes), cases="\n".join(cases)
        ),
        end="",
    )


def options_of(app: App) -> dict[str, list[str]]:
    """The options of an app's commands; of those that take a recipe's fields those of its first."""
    recipe = next(iter(app.recipes.values()))()
    names = {name: option_names(command.options(recipe)) for name, command in COMMANDS.items() if command.options}
    return names | {"sweep": list(dict.fromkeys([*names["sweep"], *names["train"]]))}
