"""Flip every bit of a Parquet footer, one at a time, and read each file in a process of its own.

`python -m tests.faults.flips FILE.parquet` prints `flips N` and a line for each process that died.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from skinbatch.archive.columns import ParquetError
from skinbatch.archive.parquet_file import columns_of
from skinbatch.archive.shard import ShardReader, count_members
from skinbatch.config import Config
from skinbatch.storage.locate import Locator
from skinbatch.types import ShardRef

LONGEST_S = 20


def main() -> None:
    path = Path(sys.argv[1])
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    places = range(len(data) - 8 - footer, len(data) - 8)
    config = Config()
    locator = Locator(config.storage)
    shard = ShardRef(path.name, str(path), "parquet", len(data), None)
    for place in places:
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            if (child := os.fork()) == 0:
                signal.alarm(LONGEST_S)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                try:
                    found = sum(1 for _ in ShardReader(shard, locator, config.decode))
                    counted = count_members(shard, locator)
                    with suppress(ParquetError):  # as a listing is told from photos
                        store, key = locator.locate(shard.uri)
                        columns_of(store, store.head(key))
                # whatever the error is, the parent must hear of it, and the child must end here
                except BaseException as e:
                    print(f"raised {place} {bit}: {type(e).__name__}: {e}", flush=True)
                    os._exit(0)
                if found != counted:
                    print(f"counted {place} {bit}: {counted}, but there are {found}", flush=True)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            if os.WIFSIGNALED(status):
                print(
                    f"killed {place} {bit}: {signal.Signals(os.WTERMSIG(status)).name}", flush=True
                )
    print(f"flips {8 * len(places)}")


if __name__ == "__main__":
    main()
