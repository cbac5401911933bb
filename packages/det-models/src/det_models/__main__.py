"""``python -m det_models COMMAND``."""

import sys
from collections.abc import Callable, Mapping

from det_backbones import WeightsError
from det_coco import DataError
from det_models.errors import CheckpointError, OptionError
from det_models.serve import serve

# Each takes the arguments after its name; its docstring's first line is its help.
COMMANDS: Mapping[str, Callable[[list[str]], None]] = {"serve": serve}


def main(args: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 130 after Ctrl-C, or 2 after an error, which goes to stderr.

    Args:
        args: As in `sys.argv[1:]`, which is the default.
    """
    name, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m det_models COMMAND [OPTIONS]\n\ncommands:")
        for known, command in COMMANDS.items():
            print(f"  {known:<10} {(command.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        if name not in COMMANDS:
            raise OptionError(f"There is no command '{name}' (there are: {', '.join(COMMANDS)}).")
        COMMANDS[name](rest)
    except (CheckpointError, DataError, OptionError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
