"""Score on a Ray cluster from a checkout: `ray job submit -- python jobs/score.py SOURCE DEST`.

It takes the options of `skinbatch score`. If skinbatch is installed on the cluster, `python -m
skinbatch score` does the same from any directory.
"""

import sys

from skinbatch.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["score"]
    main()
