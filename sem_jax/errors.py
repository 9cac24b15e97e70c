"""Errors that the user can mend.

    raise DataError("no data set 'cifar10' below ~/tensorflow_datasets", "Run: python -m sem_jax prepare cifar10")

The commands catch `SemError`, print its message (three lines at most) without a traceback and exit with status 2. Code
that imports the package sees an ordinary ValueError.
"""

import argparse
import contextlib
import difflib
import re
import sys
from typing import NoReturn

MAX_LINE = 480  # characters of one line of a message


class SemError(ValueError):
    """An error with one message: what is wrong, then what to do about it.

    >>> str(SemError("train.epochs must be >= 1, got 0", "Set it to 1 or more."))
    'train.epochs must be >= 1, got 0\\nSet it to 1 or more.'

    Args:
      message: one line: the field or file, what was found, what was expected.
      remedy: one line: the command or change that mends it.
    """

    def __init__(self, message: str, remedy: str = ""):
        lines = plain(f"{message}\n{remedy}" if remedy else message).split("\n")
        # A name or value from a stranger's file may have any length.
        short = [line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 60]} ... {line[-50:]}" for line in lines]
        super().__init__("\n".join(short))


class ConfigError(SemError):
    """A configuration that cannot work; names the field."""


class DataError(SemError):
    """Data that is missing, damaged or of the wrong kind; names the file or folder."""

    def __init__(self, message: str, remedy: str = ""):
        super().__init__(message.replace("\n", "\\n"), remedy)  # file names may have newlines


class RunError(SemError):
    """A run folder or checkpoint that cannot be used; names the folder."""


def plain(text: str) -> str:
    r"""The text with what a terminal would obey, and what it cannot show, as escapes; newlines stay.

    >>> plain("red \x1b[31m")
    'red \\x1b[31m'
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def one_line(error: BaseException, limit: int = 120) -> str:
    """The message of another library's error in one line, for use within ours; its type where it has no message."""
    text = re.sub(r" (object )?at 0x[0-9a-f]+", "", str(error))  # an address tells nobody anything
    return " ".join(text.split())[:limit] or type(error).__name__


class CommandParser(argparse.ArgumentParser):
    """Takes --data-dir for --data_dir and the other way round; a wrong option is answered in two lines."""

    def parse_known_args(self, args=None, namespace=None):
        """As of `argparse`."""
        return super().parse_known_args([self._known(it) for it in (sys.argv[1:] if args is None else args)], namespace)

    def _known(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        spelt = {option.replace("_", "-"): option for option in self._option_string_actions}
        known = name in self._option_string_actions or not name.startswith("--")
        return argument if known else spelt.get(name.replace("_", "-"), name) + equals + value

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong, with the nearest option for an unknown one, and ends with status 2."""
        unknown = message.removeprefix("unrecognized arguments: ").split("=")[0].split(" ")[0]
        near = difflib.get_close_matches(unknown, self._option_string_actions, n=1) if unknown.startswith("--") else ()
        hint = f" Did you mean {near[0]}?" if near else ""
        print(plain(f"ConfigError: {message}.{hint}\n{self.prog} --help lists the options."), file=sys.stderr)
        raise SystemExit(2)


def command_parser(command: str, doc: str | None) -> CommandParser:
    """A parser for `python -m <command>`; its --help shows the module's docstring."""
    summary, _, more = (doc or "").partition("\n")
    return CommandParser(
        prog=f"python -m {command}",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


@contextlib.contextmanager
def exit_on_error():
    """Turns a SemError into its message on standard error and exit status 2, and Ctrl-C into status 130."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except SemError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
