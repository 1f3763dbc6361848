"""The program: `hwvirt`, or `python -m hwvirt`."""

import sys

from hwvirt.errors import ExitCode

__all__ = ["main"]


def main() -> None:
    """Loads the command line and runs it. Ctrl-C during the loading is an interruption like any other."""
    try:
        from hwvirt.cli.main import main as run  # noqa: PLC0415  this is the loading

        run()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()
