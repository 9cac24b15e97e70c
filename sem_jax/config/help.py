"""The settings as `--help` shows them: by group, each with its default, what it takes and what it does.

    print(help_text())

All of it comes from the table of fields.
"""

import shutil
import textwrap

from sem_jax.config.fields import GROUPS, TABLE

LONG = 30  # characters of a default that fits beside the name


def help_text(width: int = 0) -> str:
    """The settings; lines have at most `width` characters, 0 = those of the terminal, up to 110."""
    width = width or min(shutil.get_terminal_size((100, 24)).columns, 110)

    def wrapped(text: str, indent: int) -> str:
        return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)

    lines = [wrapped("Settings, with their defaults; a configuration file sets what differs:", 0)]
    for group in ("", *GROUPS):
        lines += ["", wrapped(f"{group}: {GROUPS[group]}", 0)] if group else [""]
        for field in TABLE:
            if field.name.rpartition(".")[0] == group:
                default = '""' if field.default == "" else str(field.default)
                lines += [f"  --config.{field.name}={default}", wrapped(f"{field.doc} ({field.expected})", 6)]
    return "\n".join(lines)
