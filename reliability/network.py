"""What LiteRT makes of models that were damaged on purpose: `python -m reliability.network [N]`.

Not a promise (SECURITY.md: a network is code), a count.
"""

import json
import sys

from reliability import doors, fuzz

if __name__ == "__main__":
    counts, found = fuzz.door("network", doors.network_door, seed=0, n=int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print(json.dumps({"counts": counts, "first findings": found[:5]}, indent=1))
