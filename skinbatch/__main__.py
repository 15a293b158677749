"""Entry point of the command, also `python -m skinbatch`. From its first line on, Ctrl-C and SIGTERM end it with 130."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from skinbatch import signals, streams


def main() -> NoReturn:
    """Run the command line. Before this there is only Python's own start, which a signal ends as it ends any program."""
    signals.from_now_on(signals.interrupt)
    try:
        streams.keep_writable()
        # Long enough for a Ctrl-C to come in between.
        from skinbatch.cli.main import (
            main as command,
        )

        command()
    except KeyboardInterrupt:
        print("skinbatch: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    finally:
        # The exit code is decided, what is left is Python's own end.
        signals.from_now_on(signal.SIG_IGN)


if __name__ == "__main__":
    main()
