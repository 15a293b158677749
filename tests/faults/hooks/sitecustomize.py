"""Arm every Python process that has this folder on its path, before it imports anything.

Ray starts its workers itself, so no test can do it.
"""

import os
from pathlib import Path

from tests.faults.fault import ENVIRONMENT, ROLE, Faults

if ENVIRONMENT in os.environ:
    driver = os.environ.pop(ROLE, "") == "driver"  # its children are workers
    Faults(Path(os.environ[ENVIRONMENT])).arm("driver" if driver else "worker")
