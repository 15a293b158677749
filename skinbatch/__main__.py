"""The command's first lines, also `python -m skinbatch`: from here on Ctrl-C and SIGTERM end it with 130 and a word."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from skinbatch import signals


def main() -> NoReturn:
    """Entry point. Before it there is only Python's own start, which a signal ends as it ends any program."""
    signals.from_now_on(signals.interrupt)
    try:
        from skinbatch.cli import main as command  # long enough for a Ctrl-C to come in between

        command()
    except KeyboardInterrupt:
        print("skinbatch: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
    finally:
        signals.from_now_on(signal.SIG_IGN)  # the exit code is decided, what is left is Python's own end


if __name__ == "__main__":
    main()
