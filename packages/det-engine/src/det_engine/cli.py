"""Command line: subcommands, exit statuses, one message for wrong use.

An app reads its command (`dispatch`), takes the options it needs first (`take_option`, such as `--recipe`), lets the
rest override the recipe's dataclass (`options.override`), and runs under `run_main`, which turns errors into exit
statuses.
"""

import contextlib
import difflib
import errno
import os
import select
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from det_engine import launching
from det_engine.errors import EngineError, Interrupted
from det_engine.signals import Ended, ending_in_order

DEBUG_VARIABLE = "DET_DEBUG"
COLUMNS = 80
"""Width of help pages."""
_UNREAD = 128 + signal.SIGPIPE
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(EngineError):
    """A wrong command line."""


def run_main(main: Callable[[], int | None], errors: tuple[type[Exception], ...] = (EngineError,)) -> int:
    """Run a command and return its exit status.

    | status | when |
    |---|---|
    | 0, or what `main` returns | done |
    | 2 | one of `errors`, or `EngineError`, or a full disk: the message goes to stderr, without traceback |
    | 129 | a closed terminal (SIGHUP) |
    | 130 | Ctrl-C |
    | 141 | nobody reads the output any more, as after `| head` |
    | 143 | SIGTERM |

    With `DET_DEBUG=1` in the environment the traceback is shown as well.

    Args:
        main: the command.
        errors: exceptions whose message is for the user.
    """
    try:
        with ending_in_order():
            status = main() or 0
    except BaseException as error:
        found = _status_of(error, (*errors, EngineError))
        if found is None:
            raise
        status = found
    else:
        status = _UNREAD if _reader_is_gone() and not status else status
    launching.leave(status)
    return status


def _status_of(error: BaseException, errors: tuple[type[Exception], ...]) -> int | None:
    """Say what happened; the status, or None if the error is to be raised."""
    # What else went wrong, or which signal came, is said on stderr, which others may read.
    ended = isinstance(error, BrokenPipeError) or (isinstance(error, SystemExit) and not error.code)
    if _reader_is_gone(error) and ended:
        return _UNREAD
    if isinstance(error, Interrupted):
        if launching.is_main():
            _say(str(error))
        return error.status
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted")
        return 130
    if isinstance(error, Ended):
        if launching.is_main():
            _say(str(error))
        return 128 + error.number
    if isinstance(error, errors):
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
        message = str(error)
        _report(message if message.endswith((".", "?", "!")) else f"{message}.")
        return 2
    if isinstance(error, OSError) and error.errno in _FULL:
        file = error.filename2 or error.filename or "a file"  # of two, the one that is written
        _report(f"Cannot write {file}: {error.strerror}.")
        return 2
    return None if launching.world_size() == 1 else _status_of_process(error)


def _status_of_process(error: BaseException) -> int | None:
    """The same for what ends one of several processes, which has to leave and not only to end."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        _report(str(error.code))
        return 1
    if not isinstance(error, Exception):
        return None
    traceback.print_exception(error)
    _report(f"{type(error).__name__}: {error}")
    return 1


def _reader_is_gone(error: BaseException | None = None) -> bool:
    """Whether what reads our output, such as `head`, has ended; then nothing is written any more."""
    gone = False
    if isinstance(error, BrokenPipeError):
        # It may also be a pipe to another process of ours that broke.
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)
        gone = any(state & select.POLLERR for _, state in output.poll(0))
    try:
        sys.stdout.flush()
    except OSError as failure:
        # EIO: the terminal was closed.
        if not isinstance(failure, BrokenPipeError) and failure.errno != errno.EIO:
            raise
        gone = True
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _report(text: str) -> None:
    """Show the message of an error, or leave it to whoever started this process as one of several."""
    if not launching.report_to_launcher(text):
        number = os.environ.get("RANK")
        _say(f"error: {text}" if number in (None, "0") else f"error: process {number}: {text}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal was closed
        print(text, file=sys.stderr, flush=True)


def dispatch(commands: Mapping[str, Callable[[list[str]], int | None]], args: Sequence[str], prog: str) -> int | None:
    """Call the command that `args` begins with, giving it the arguments after its name.

    Args:
        commands: functions by name; the first line of a function's docstring is its help.
        args: as in `sys.argv[1:]`; without any, or with `--help`, the commands are listed.
        prog: program name, for messages.

    Raises:
        UsageError: as :func:`chosen` raises it.
    """
    abouts = {name: (function.__doc__ or "").strip().partition("\n")[0] for name, function in commands.items()}
    name = chosen(abouts, args, prog)
    return 0 if name is None else commands[name](list(args[1:]))


def chosen(commands: Mapping[str, str], args: Sequence[str], prog: str) -> str | None:
    """Name of the command that `args` begins with; None after a list of all, which no command or `--help` asks for.

    Args:
        commands: what each does, in a line, by name.
        args: as in `sys.argv[1:]`.
        prog: program name, for messages.

    Raises:
        UsageError: there is no such command; names the nearest. Or an argument is empty, which a path would take for
            the current folder.
    """
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: {prog} COMMAND [OPTIONS]\n\ncommands:")
        print_pairs(commands.items(), indent="  ")
        print(f"\nOptions of a command: {prog} COMMAND --help")
        return None
    if args[0] not in commands:
        raise unknown("command", args[0], commands)
    for before, argument in pairwise(args):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            what = argument.rstrip("=") or before
            raise UsageError(f"The argument after {what} is empty. Give it a value, or leave it out.")
    return args[0]


def print_pairs(pairs: Iterable[tuple[str, str]], indent: str = "") -> None:
    """Print names and what they are as two columns of a help page, the second broken where the page ends.

    Args:
        pairs: of them.
        indent: what each line begins with.
    """
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs) + 2
    for name, about in pairs:
        first = f"{indent}{name:<{width}}"
        print(textwrap.fill(about, COLUMNS, initial_indent=first, subsequent_indent=" " * len(first)) or first.rstrip())


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
