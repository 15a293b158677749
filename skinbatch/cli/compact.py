"""Define the command that merges small table files: `compact`."""

from __future__ import annotations

import dataclasses

from skinbatch.cli.options import ConfigFile, Dest, Json, Scoring, print_json
from skinbatch.config import load_config


def compact(
    dest: Dest, scoring: Scoring = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Merge the small table files of a finished scoring into files of about 128 MB.

    Rows do not change, and every other command works as before. It may be interrupted at any time;
    the same command goes on. While it works, read the tables with `skinbatch.open`, because a glob
    over the files may show some rows twice for a moment.
    """
    from skinbatch.engines.terminal import TerminalPresenter
    from skinbatch.reading import destination_store
    from skinbatch.runs.compact import compact as run

    store = destination_store(dest, load_config(config).storage)
    with TerminalPresenter() as presenter:
        done = run(
            store,
            scoring=scoring,
            on_wait=lambda holder: presenter.phase(
                f"the destination is claimed by {holder}; watching it"
            ),
            progress=lambda files, of: presenter.phase(f"{files:,} of {of:,} files looked at"),
        )

    if as_json:
        print_json(dataclasses.asdict(done))
        return
    if done.left_behind:
        print(f"removed {done.left_behind:,} files that an interrupted command had left behind")
    if not done.merged:
        print(f"nothing to merge: {done.files_before:,} files, {_size(done.bytes_before)}")
        return
    print(
        f"{done.files_before:,} files ({_size(done.bytes_before)}) are now {done.files_after:,} "
        f"({_size(done.bytes_after)})"
    )


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
