"""Submit a command to a Ray cluster, print its log, and end with its exit code.

    python jobs/submit.py -- skinbatch score s3://photos s3://scores --json

`ray job submit` ends with 1 whatever went wrong. A scheduler that decides whether to try again
needs the code itself: this is what the pod of `cluster/kubernetes/base/cronjob.yaml` runs, and what
cron or Airflow run on a machine outside the cluster.

SIGTERM and SIGINT stop the run in the cluster and wait for its end (130). With `--name`, a second
call follows a run of that name that is still going instead of starting another one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

# Exit codes of this program itself, with the same meaning as skinbatch's.
WRONG_USE = 2
TRY_AGAIN = 4
INTERRUPTED = 130

# Seconds between two looks at the run.
POLL_S = 1.0
# The most seconds that the head may take for one answer.
ANSWER_S = 20.0
# The most seconds that the last lines of the log may take after the end of the run.
LAST_LINES_S = 20.0

# The errors of requests and aiohttp when the head is restarted, lost, or cut off.
UNREACHABLE = (ConnectionError, TimeoutError, requests.RequestException, aiohttp.ClientError)


class Stop(Exception):
    """End with this message and exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code of the command, or one of this program's own."""
    options = parse(arguments)
    if options.address:
        os.environ["RAY_API_SERVER_ADDRESS"] = options.address

    # From here on, or a signal would be lost before the run is followed: as the first process of a container, a
    # program without a handler ignores it.
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    try:
        client = connect(options.wait, stopping)
        submission_id = attach_or_submit(client, options.name, shlex.join(options.command))
        say(f"run {submission_id} on {client.get_address()}")
        return asyncio.run(follow(client, submission_id, options.patience, stopping))
    except Stop as e:
        say(str(e))
        return e.exit_code
    except (RuntimeError, *UNREACHABLE) as e:
        say(f"the run could not be submitted: {e}")
        return TRY_AGAIN


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="submit.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--address", help="http://HOST:8265 of the cluster's head (default: RAY_API_SERVER_ADDRESS)"
    )
    parser.add_argument(
        "--name", default=os.environ.get("RUN_NAME"), help="name of the run (default: RUN_NAME)"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=60.0,
        help="seconds to wait for the head at the start (default: 60)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds that the head may be silent during the run (default: 60)",
    )
    parser.add_argument("command", nargs="+", help="the command, after --")
    return parser.parse_args(arguments)


def connect(wait: float, stopping: threading.Event) -> JobSubmissionClient:
    """Return a client of the cluster, waiting for its head for up to `wait` seconds.

    Raises:
        Stop: If nothing answers, the answer is not that of a Ray head that grants access, or a
            signal arrives.
    """
    deadline = time.monotonic() + wait
    while not stopping.is_set():
        try:
            return JobSubmissionClient()
        except (AuthenticationError, ValueError) as e:
            raise Stop(f"the Ray cluster denies access: {e}", WRONG_USE) from None
        except UNREACHABLE as e:
            if time.monotonic() > deadline:
                raise Stop(
                    f"{e} No head answered within {wait:g} s. Is the cluster up, and is "
                    "RAY_API_SERVER_ADDRESS the http address of its dashboard?",
                    TRY_AGAIN,
                ) from None
        except RuntimeError as e:
            raise Stop(f"this is not the dashboard of a Ray cluster: {e}", WRONG_USE) from None

        time.sleep(POLL_S)

    raise Stop("interrupted before the run was submitted", INTERRUPTED)


def attach_or_submit(client: JobSubmissionClient, name: str | None, command: str) -> str:
    """Return the id of the run of this name that is still going, or else of a new one."""
    if name is None:
        return str(client.submit_job(entrypoint=command))

    statuses = {job.submission_id: job.status for job in client.list_jobs()}
    attempt = 1
    while (status := statuses.get(f"{name}-{attempt}")) is not None and status.is_terminal():
        attempt += 1

    submission_id = f"{name}-{attempt}"
    if submission_id not in statuses:
        client.submit_job(entrypoint=command, submission_id=submission_id)
    return submission_id


async def follow(
    client: JobSubmissionClient, submission_id: str, patience: float, stopping: threading.Event
) -> int:
    """Print the log of a run until it ends, and return its exit code. A signal stops the run.

    Raises:
        Stop: If the head is out of reach for longer than `patience` seconds, or has lost the run.
    """
    printing = asyncio.create_task(print_log(client, submission_id))
    asked_to_stop = False
    last_answer = time.monotonic()
    while True:
        try:
            if stopping.is_set() and not asked_to_stop:
                await answer(client.stop_job, submission_id)
                asked_to_stop = True

            run = await answer(client.get_job_info, submission_id)
            last_answer = time.monotonic()
        except UNREACHABLE as e:
            if time.monotonic() - last_answer > patience:
                raise Stop(
                    f"the head of the Ray cluster has not answered for {patience:g} s ({e!r}). "
                    "What was scored is kept: the same command resumes",
                    TRY_AGAIN,
                ) from None
        except RuntimeError as e:
            # A head that was restarted without fault tolerance no longer has its jobs.
            raise Stop(
                f"the Ray cluster has lost the run {submission_id}: {e}", TRY_AGAIN
            ) from None
        else:
            if run.status.is_terminal():
                break

        await asyncio.sleep(POLL_S)

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(printing, LAST_LINES_S)
    return exit_code_of(run)


async def answer(request: Any, submission_id: str) -> Any:
    """Return the head's answer. Raises TimeoutError if there is none in ANSWER_S seconds."""
    return await asyncio.wait_for(asyncio.to_thread(request, submission_id), ANSWER_S)


async def print_log(client: JobSubmissionClient, submission_id: str) -> None:
    """Print the log to its end. After a lost connection, go on behind what is printed already."""
    printed = 0
    while True:
        position = 0
        try:
            async for lines in client.tail_job_logs(submission_id):
                new = lines[max(0, printed - position) :]
                position += len(lines)
                printed = max(printed, position)
                print(new, end="", flush=True)
            return
        except (RuntimeError, *UNREACHABLE):
            await asyncio.sleep(POLL_S)


def exit_code_of(run: Any) -> int:
    """Return the exit code of a run that has ended, as the shell would give it."""
    if run.status == JobStatus.SUCCEEDED:
        return 0
    if run.status == JobStatus.STOPPED:
        return INTERRUPTED
    if run.driver_exit_code is None:
        say(f"the command could not be started or was lost: {run.message}")
        return TRY_AGAIN
    if run.driver_exit_code < 0:
        return 128 - int(run.driver_exit_code)  # ended by a signal
    return int(run.driver_exit_code)


def say(message: str) -> None:
    """Print to stderr, where it does not mix with the result."""
    print(f"submit: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # A request that is never answered would delay Python's own exit.
    os._exit(code)
