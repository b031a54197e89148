"""Where the program `delf-edge` and `python -m delf_edge` start.

The modules of the command line are imported inside, so that Ctrl-C meanwhile ends it without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130


def start() -> None:
    """Load the command line and run it.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        for number in (0, 1, 2):  # closed ones would be given to the next file that is opened, a database perhaps
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        from delf_edge.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:  # once more while it ends, and it ends without a word
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    start()
