"""The command line: ``python -m monai_fetalkd <command> --help`` tells what a command does."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from monai_fetalkd import __version__

__all__ = ["main"]

# each is a module of monai_fetalkd.commands whose docstring is its help
_COMMANDS = ("datalist", "check", "evaluate", "study", "init", "export", "stream", "serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command and its arguments; those of the process by default.

    Returns:
        The exit status: 0 when all is well; 1 when the command has found a problem or could not do its work, which it
        tells in one sentence; 2 when the arguments are wrong.

    Example:
        >>> main(["datalist", "/nowhere", "--output", "planes.json"])
        1
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_fetalkd",
        description="Knowledge distillation for MONAI: data, evaluation, studies, terminals.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="command", required=True)
    for name in _COMMANDS:
        module = importlib.import_module(f"monai_fetalkd.commands.{name}")
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        return parsed.run(parsed)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
