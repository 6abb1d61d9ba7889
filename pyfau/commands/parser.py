"""The argument parser of all commands: it suggests corrections and completes with the tab key."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from pyfau.checks import nearest_word
from pyfau.messages import printable

SHELLS = ("bash", "zsh", "tcsh", "fish", "powershell")
_FILES = ("INPUT", "FILE", "OUT", "TABLE", "DIR")  # metavars of arguments that are paths


class CommandParser(argparse.ArgumentParser):
    """A parser that suggests the nearest choice when a command or a value is misspelt.

    Subparsers are of the same class. argparse can do this itself from Python 3.14 on.
    """

    # The hooks have a leading underscore in argparse, but no public method sees single values.
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            nearest = nearest_word(str(value), [str(choice) for choice in action.choices or ()])
            if nearest is not None:
                error.message += f". Did you mean {nearest!r}?"
            raise

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.type is Path and arg_string == "-":
            raise argparse.ArgumentError(
                action, "expected a path, got '-': pyfau uses neither standard input nor output"
            )
        return super()._get_value(action, arg_string)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; an unknown option is an error that names the nearest known one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown, parsed)
        return parsed

    def error(self, message: str) -> NoReturn:
        """End the process with 2, and a message whose characters a terminal can show."""
        super().error(printable(message))

    def _refuse(self, unknown: Sequence[str], parsed: argparse.Namespace) -> NoReturn:
        message = f"unrecognized arguments: {' '.join(unknown)}"
        options = [name for action in _actions_for(self, parsed) for name in action.option_strings]
        nearest = nearest_word(unknown[0].partition("=")[0], options)
        if nearest is not None:
            message += f". Did you mean {nearest!r}?"
        _chosen(self, parsed).error(message)


def _chosen(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the subcommand that was chosen, whose usage helps more than that of all."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = action.choices.get(str(getattr(parsed, action.dest, None)))
            if chosen is not None:
                return cast(argparse.ArgumentParser, chosen)
    return parser


def _actions_for(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace
) -> Iterator[argparse.Action]:
    """The arguments of the parser and of the subcommand that was chosen."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = action.choices.get(str(getattr(parsed, action.dest, None)))
            if chosen is not None:
                yield from _actions_for(chosen, parsed)
        else:
            yield action


class PrintCompletion(argparse.Action):
    """An option that prints a script for the shell, which completes the commands and options."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Print the script for the shell in `values` and end the process with 0."""
        try:
            import shtab  # loaded for this option only, so that starting stays fast
        except ImportError:
            # The parser reports it, because `main` catches pyfau's errors only after parsing.
            parser.error(f"{option_string} needs the package shtab: pip install shtab")
        for action in _all_actions(parser):
            if action.type is Path or action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            completed = getattr(action, "completed", None)
            if completed is not None:
                action.choices = completed  # for the script only: parsing has ended
        print(shtab.complete(parser, values))  # noqa: T201  a script, made from constants
        parser.exit()


def _all_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of the parser and of all of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _all_actions(command)


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the option `--print-completion SHELL`."""
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a script that completes commands and options with the tab key",
    )
