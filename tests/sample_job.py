"""A small job in pieces, with stage files, a merge step and a volatile file; also as a process of its own."""

import json
import os
import sys
import time
from pathlib import Path

from photoz.artifacts import Artifact, Destination, Draft, Outcome, Store, open_store
from photoz.runtime import TaskSlice

PIECES = [f"train-{number:06d}" for number in range(7)]
WHOLE = TaskSlice()


def write(
    store: Store,
    name: str = "x",
    *,
    kind: str = "shards",
    task: TaskSlice = WHOLE,
    settings: dict[str, object] | None = None,
    inputs: tuple[Artifact, ...] = (),
    force: bool = False,
    salt: bytes = b"",
    pieces: list[str] = PIECES,
) -> Outcome:
    """Run the job. `salt` makes other bytes of the same settings, as other hardware may."""
    dest = Destination(store, name, task, force)
    with Draft.begin(dest, kind=kind, recipe=1, settings=settings or {}, inputs=inputs) as draft:
        if draft.published:
            return draft.published
        for piece in draft.todo(pieces):
            staged = [draft.put_stage(f"{piece}.txt", piece.encode() + salt)]
            draft.finish_piece(piece, [draft.put(f"{piece}.tar", piece.encode() + salt, rows=3)], {"failed": 1}, staged)
        if not draft.finish_slice():
            return draft.partial()
        merged = b"".join(draft.stage(entry) for receipt in draft.receipts() for entry in receipt.staged)
        draft.put("merged.bin", merged)
        draft.put("timings.bin", os.urandom(8), volatile=True)
        return draft.commit({"failed": sum(receipt.facts["failed"] for receipt in draft.receipts())})


def main(store: str, settings: str, task: str, starting_gun: str) -> None:
    """Open the store, wait until the file `starting_gun` is there, run the job, print its outcome."""
    opened = open_store(store)
    print("ready", flush=True)
    while not Path(starting_gun).exists():
        time.sleep(0.001)
    index, count = map(int, task.split("/"))
    outcome = write(opened, settings=json.loads(settings), task=TaskSlice(index, count), pieces=PIECES[:2])
    print(json.dumps(outcome.as_dict()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
