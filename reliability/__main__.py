"""The command line of the lab: `python -m reliability`."""

import sys

from reliability.campaigns import main

if __name__ == "__main__":
    sys.exit(main())
