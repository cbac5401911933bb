"""``python -m det_coco COMMAND``."""

import sys
from collections.abc import Callable, Mapping

from det_coco.doctor.command import check
from det_coco.errors import DataError
from det_coco.formats.conversion import convert
from det_coco.report.commands import compare_results, report

# Each takes the arguments after its name; its docstring's first line is its help, and what it returns its exit status.
COMMANDS: Mapping[str, Callable[[list[str]], int | None]] = {
    "check": check,
    "compare": compare_results,
    "convert": convert,
    "report": report,
}


def main(args: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0, what the command says, or 2 after an error, which goes to stderr.

    Args:
        args: as in `sys.argv[1:]`, which is the default.
    """
    name, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m det_coco COMMAND [OPTIONS]\n\ncommands:")
        for known, command in COMMANDS.items():
            print(f"  {known:<10} {(command.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        if name not in COMMANDS:
            raise DataError(f"There is no command '{name}' (there are: {', '.join(COMMANDS)}).")
        return COMMANDS[name](rest) or 0
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
