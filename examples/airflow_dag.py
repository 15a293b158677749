"""Score new photos every night with Airflow 3.

The task is skipped if another run is using the destination, and fails at once if another try cannot
help. Otherwise it is tried again. Its result, the line of JSON, is kept as its XCom.
"""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

HELD_BY_ANOTHER_RUN = 7
# Wrong settings, and too many photos that cannot be read: the next try ends the same way.
NEVER_AGAIN = (2, 3)


@dag(
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # The next night does not start while a run is still going.
    max_active_runs=1,
    params={"photos": "s3://my-photos", "scores": "s3://my-scores"},
)
def skinbatch_nightly() -> None:
    @task(retries=3, retry_delay=timedelta(minutes=10), execution_timeout=timedelta(hours=7))
    def score(params: dict[str, str]) -> Any:
        command = ["skinbatch", "score", params["photos"], params["scores"]]
        options = ["--deadline", "6h", "--exit-zero-on", "6", "--json"]
        run = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True)
        result = json.loads(run.stdout.splitlines()[-1])

        if run.returncode == HELD_BY_ANOTHER_RUN:
            raise AirflowSkipException(result["message"])
        if run.returncode in NEVER_AGAIN:
            raise AirflowFailException(result["message"])
        if run.returncode != 0:
            raise RuntimeError(result["message"])
        return result

    score()


skinbatch_nightly()
