"""The command line of the lab: `python -m tests.reliability`."""

import sys

from tests.reliability.campaigns import main

if __name__ == "__main__":
    sys.exit(main())
