"""Terminal output: without escape codes if the output is not a terminal or NO_COLOR is set (no-color.org)."""

import os
import sys

from rich.console import Console


def console() -> Console:
    """Return the terminal console of a command."""
    is_plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    return Console(highlight=False, force_terminal=False if is_plain else None)
