"""Test that throughput is shown over the time in which runs were going on."""

from __future__ import annotations

import numpy as np

from skinbatch.report.run_history import running_seconds


def test_pauses_between_runs_take_no_time() -> None:
    commits = [110, 120, 130, 86_400 + 15, 86_400 + 25]

    running = running_seconds(commits, [100, 86_400])

    np.testing.assert_allclose(running, [10, 20, 30, 30 + 15, 30 + 25])


def test_without_a_record_time_begins_at_the_first_commit() -> None:
    np.testing.assert_allclose(running_seconds([50, 20, 30], []), [30, 0, 10])
    np.testing.assert_allclose(running_seconds([20, 30, 150], [100]), [0, 10, 10 + 50])
    assert running_seconds([], [100]).size == 0


def test_a_run_that_commits_nothing_adds_no_time() -> None:
    np.testing.assert_allclose(running_seconds([110, 320], [100, 200, 300, 400]), [10, 10 + 20])
