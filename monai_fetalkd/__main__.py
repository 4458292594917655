"""The command line: ``python -m monai_fetalkd <command> --help`` tells what a command does."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from monai_fetalkd import __version__
from monai_fetalkd.utils.machine import machine_error, told

__all__ = ["main"]

# each is a module of monai_fetalkd.commands whose docstring is its help
_COMMANDS = ("datalist", "check", "evaluate", "study", "init", "export", "stream", "serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command and its arguments; those of the process by default.

    Returns:
        The exit status: 0 when all is well; 1 when the command has found a problem or could not do its work, which it
        tells in one sentence; 2 when the arguments are wrong, or there is no command.

    Example:
        >>> main(["datalist", "/nowhere", "--output", "planes.json"])
        1
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_fetalkd",
        description="Knowledge distillation for MONAI: data, evaluation, studies, edge devices.",
        epilog="python -m monai_fetalkd COMMAND --help tells what a command does, with examples. Networks are trained "
        "by python -m monai.bundle run, see the README.",
    )
    parser.add_argument("--version", action="version", version=f"monai_fetalkd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in _COMMANDS:
        module = importlib.import_module(f"monai_fetalkd.commands.{name}")
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=_HelpWithDefaults,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help(sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        return parsed.run(parsed)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {told(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        cause = machine_error(error)
        if cause is None:
            raise
        print(f"error: {told(cause) if isinstance(cause, OSError) else 'there is not enough memory.'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


class _HelpWithDefaults(argparse.RawDescriptionHelpFormatter):
    """Puts the default behind the help of an argument, unless it is there already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = f"({action.default:g})" if isinstance(action.default, float) else f"({action.default})"
        if not action.option_strings or action.default in (None, False, [], argparse.SUPPRESS):
            return action.help
        return action.help if shown in (action.help or "") else f"{action.help} {shown}"


if __name__ == "__main__":
    sys.exit(main())
