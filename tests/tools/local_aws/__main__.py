"""Run a command of the local AWS: `python -m tools.local_aws up | tenant | down | demo | invoke`; each has `--help`."""

import signal

if __name__ == "__main__":  # during imports Ctrl-C ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import importlib
import sys

INTERRUPTED = 130
"""Shells' exit code after Ctrl-C."""

COMMANDS = {
    "up": ("tools.local_aws.up", "up"),
    "down": ("tools.local_aws.up", "down"),
    "tenant": ("tools.local_aws.up", "tenant"),
    "demo": ("tools.local_aws.demo", "main"),
    "invoke": ("tools.local_aws.invoke", "main"),
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    module, function = COMMANDS[arguments[0]]
    command = getattr(importlib.import_module(module), function)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(command(arguments[1:]))
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
