"""Score on a Ray cluster: `ray job submit -- python jobs/score.py SOURCE DEST`, with the options of `skinbatch score`."""

import sys

from skinbatch.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["score"]
    main()
