"""Command line: subcommands, typed options over a default configuration, one message for wrong use.

An app reads its command (`dispatch`), takes the options it needs first (`take_option`, such as `--recipe`), lets the
rest override the recipe's dataclass (`override`), and runs under `run_main`, which turns errors into exit statuses.
"""

import contextlib
import difflib
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import tyro

from det_engine import distributed
from det_engine.errors import EngineError, Interrupted

T = TypeVar("T")
DEBUG_VARIABLE = "DET_DEBUG"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(EngineError):
    """A wrong command line."""


def run_main(main: Callable[[], int | None], errors: tuple[type[Exception], ...] = (EngineError,)) -> int:
    """Run a command and return its exit status.

    | status | when |
    |---|---|
    | 0, or what `main` returns | done |
    | 2 | one of `errors`, or `EngineError`, or a full disk: the message goes to stderr, without traceback |
    | 130 | Ctrl-C |
    | 143 | SIGTERM during training |

    With `DET_DEBUG=1` in the environment the traceback is shown as well.

    Args:
        main: the command.
        errors: exceptions whose message is for the user.
    """
    status = _status(main, (*errors, EngineError))
    distributed.leave(status)
    return status


def _status(main: Callable[[], int | None], errors: tuple[type[Exception], ...]) -> int:
    try:
        return main() or 0
    except Interrupted as error:
        if distributed.is_main():
            _say(str(error))
        return error.status
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except SystemExit as error:
        if distributed.world_size() == 1:
            raise
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        _report(str(error.code))
        return 1
    except errors as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        _report(str(error))
        return 2
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            _report(f"Cannot write {error.filename or 'a file'}: {error.strerror}.")
            return 2
        if distributed.world_size() == 1:
            raise
        traceback.print_exc()
        _report(f"{type(error).__name__}: {error}")
        return 1


def _report(text: str) -> None:
    """Show the message of an error, or leave it to whoever started this process as one of several."""
    if not distributed.report_to_launcher(text):
        number = os.environ.get("RANK")
        _say(f"error: {text}" if number in (None, "0") else f"error: process {number}: {text}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def dispatch(commands: Mapping[str, Callable[[list[str]], int | None]], args: Sequence[str], prog: str) -> int | None:
    """Call the command that `args` begins with, giving it the arguments after its name.

    Args:
        commands: functions by name; the first line of a function's docstring is its help.
        args: as in `sys.argv[1:]`; without any, or with `--help`, the commands are listed.
        prog: program name, for messages.

    Raises:
        UsageError: there is no such command; names the nearest.
    """
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: {prog} COMMAND [OPTIONS]\n\ncommands:")
        for name, function in commands.items():
            print(
                f"  {name:<12} {(function.__doc__ or '').strip().splitlines()[0] if function.__doc__ else ''}".rstrip()
            )
        print(f"\nOptions of a command: {prog} COMMAND --help")
        return 0
    if args[0] not in commands:
        raise unknown("command", args[0], commands)
    return commands[args[0]](list(args[1:]))


def unknown(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, naming the nearest that does.

    Args:
        kind: what is named: "recipe", "command", ...
        name: what the user wrote.
        choices: what there is.
    """
    choices = list(choices)
    near = nearest(name, choices)
    hint = f" Did you mean {near!r}?" if near else ""
    return UsageError(f"Unknown {kind} {name!r}.{hint} There are: {', '.join(choices)}.")


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The choice most like `name`, compared as a whole and by the part after the last dot; None if none is near."""
    leaf = name.rpartition(".")[2].lstrip("-")

    def likeness(choice: str) -> float:
        whole = difflib.SequenceMatcher(None, name.lower(), choice.lower()).ratio()
        end = choice.rpartition(".")[2].lstrip("-").lower()
        part = difflib.SequenceMatcher(None, leaf.lower(), end).ratio()
        # A missing or wrong section is the smaller mistake, but an equal whole is the better answer. A word of the
        # name (`lr` for `base-lr`) counts as near, however short it is.
        word = 0.7 + 0.2 * part if leaf.lower() in end.split("-") else 0.0
        return max(whole, 0.95 * part, word)

    best = max(choices, key=likeness, default=None)
    return best if best is not None and likeness(best) >= cutoff else None


def take_option(args: Sequence[str], name: str, default: str | None = None) -> tuple[str | None, list[str]]:
    """Take `--name VALUE` or `--name=VALUE` out of `args`, the last one if it is given several times.

    Args:
        args: arguments.
        name: option without dashes, hyphenated.
        default: value where the option is not given.

    Returns:
        The value and the other arguments.

    Raises:
        UsageError: the value is missing.
    """
    value, rest = default, []
    flag = f"--{name}"
    position = 0
    while position < len(args):
        argument = args[position]
        if argument == flag:
            if position + 1 == len(args) or args[position + 1].startswith("--"):
                raise UsageError(f"Option {flag} needs a value.")
            value = args[position + 1]
            position += 1
        elif argument.startswith(f"{flag}="):
            value = argument[len(flag) + 1 :]
        else:
            rest.append(argument)
        position += 1
    return value, rest


def override(default: T, args: Sequence[str], prog: str, description: str | None = None) -> T:
    """A copy of the dataclass `default` with the fields that `args` name replaced.

    Nested dataclasses make dotted options: `--solver.base-lr 0.01`. Tuples take several values, optional fields take
    `None`, booleans take `True` or `False`. `--help` prints all options with the values of `default` and exits.

    Args:
        default: a dataclass instance, such as a recipe.
        args: options.
        prog: program name, for help and messages.
        description: text above the options in the help.

    Raises:
        UsageError: an option does not exist (names the nearest), or a value does not fit.
    """
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            result, rest = _parse(default, list(args), prog, description)
    except SystemExit as error:
        if not error.code:
            raise
        # Who misspells a required option has also left it out; the spelling is what helps.
        names = option_names(default)
        misspelt = next((a for a in args if a.startswith("--") and _option(a) not in names), None)
        if misspelt is not None:
            raise _unknown_option(misspelt, names, prog) from None
        raise UsageError(f"{_sentence(complaints.getvalue())} See {prog} --help.") from None
    if not rest:
        return result
    wrong = next((argument for argument in rest if argument.startswith("-")), None)
    if wrong is None:
        raise UsageError(f"Unexpected argument {rest[0]!r}. Options begin with --; see {prog} --help.")
    raise _unknown_option(wrong, option_names(default), prog)


def _option(argument: str) -> str:
    """The option of `--name` or `--name=value`, spelt with hyphens."""
    return argument.partition("=")[0].replace("_", "-")


def _unknown_option(argument: str, names: Sequence[str], prog: str) -> UsageError:
    name = argument.partition("=")[0]
    near = nearest(name, names)
    return UsageError(f"Unknown option {name}.{f' Did you mean {near}?' if near else ''} See {prog} --help.")


def option_names(default: Any, prog: str = "") -> list[str]:
    """The options that `override` takes for the dataclass instance `default`, in the order of its help."""
    text = io.StringIO()
    # Wide enough that no name is broken; tyro then sets boxes side by side, so an option may begin in any column.
    with _environment("COLUMNS", "1000"), contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _parse(default, ["--help"], prog, None)
    found = re.findall(r"(?:^|│|\s\s)\s*(?:-\w, )?(--[a-z][\w.-]*)", text.getvalue(), flags=re.MULTILINE)
    return list(dict.fromkeys(found))


def _parse(default: T, args: list[str], prog: str, description: str | None) -> tuple[T, list[str]]:
    return tyro.cli(
        type(default),
        default=default,
        args=args,
        prog=prog,
        description=description,
        return_unknown_args=True,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
    )


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _sentence(box: str) -> str:
    """The message inside tyro's box, in one line; the box is drawn with lines or, where the output has none, dashes."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for line in lines:
        if re.fullmatch("─+|-+", line):
            sections.append([])
        elif line:
            sections[-1].append(line)
    # In a box of lines the title is part of the border, in one of dashes it is a section of its own.
    message = sections[0] if "╭" in box or len(sections) == 1 else sections[1]
    text = " ".join(message)
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
