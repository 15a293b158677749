"""Arms every Python process that finds this folder on its path, before it imports anything: Ray starts its workers itself."""

import os
from pathlib import Path

from tests.faults.fault import ENVIRONMENT, Faults

if ENVIRONMENT in os.environ:
    Faults(Path(os.environ[ENVIRONMENT])).arm("worker")
