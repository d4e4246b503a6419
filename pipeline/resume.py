"""Finding out what a run with checkpoints has to do: begin, go on from a snapshot, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .checkpointing import Checkpointing
from .checkpoints import CheckpointStore, Snapshot
from .deliver import Deliver
from .errors import CheckpointError, PlanError
from .fingerprint import changes, describe_plan
from .operator import State
from .options import RunOptions
from .plan import Plan
from .report import Report
from .runtime import Runtime
from .state_codec import decode_state, encode_state

__all__ = ["Resumption", "completed_report", "open_store"]

#: The part of a snapshot that holds the records put aside so far.
_QUARANTINE = "run:quarantine"


@dataclass
class Resumption:
    """The store of a run, with the snapshot from which it goes on (None: from the beginning)."""

    store: CheckpointStore
    snapshot: Snapshot | None = None
    states: Mapping[str, State] = field(default_factory=dict)

    def checkpointing(self, plan: Plan, options: RunOptions, runtime: Runtime) -> Checkpointing:
        """Have `runtime` make snapshots."""
        saving = Checkpointing(
            self.store,
            plan,
            runtime.clock,
            every_ns=options.checkpoint_every_ns,
            every_rows=options.checkpoint_rows,
            about={"graph": describe_plan(plan)},
            resumed=self.snapshot,
        )
        self.attach(saving, runtime)
        if self.snapshot is not None:
            runtime.quarantine.restore(decode_state(self.snapshot.part(_QUARANTINE)))
        return saving

    def attach(self, saving: Checkpointing, runtime: Runtime) -> None:
        """Let `saving` have the snapshots of `runtime`, and its sinks hear of those that are stored."""

        def publish(parts: Mapping[str, bytes]) -> None:
            for cell in runtime.sinks():
                cell.to_publish = decode_state(parts[cell.node.id])["sink"]

        saving.on_stored = publish
        saving.extra = lambda: {_QUARANTINE: encode_state(runtime.quarantine.snapshot())}
        runtime.save_to(saving)


def open_store(plan: Plan, options: RunOptions) -> Resumption:
    """The store that `options` name, and the snapshot to go on from.

    Raises PlanError if snapshots of an unfinished run are there and ``resume`` was not said, or if a Python loop is fed;
    CheckpointError if the snapshot is of another graph, with what changed.
    """
    if options.checkpoint is None:
        raise PlanError("no checkpoint folder was named")
    if any(isinstance(node.spec, Deliver) for node in plan.nodes):
        raise PlanError("a Python loop cannot be resumed; end the stream in a sink to have checkpoints")
    store = CheckpointStore(options.checkpoint)
    try:
        snapshot = store.latest()
        if snapshot is None or snapshot.manifest.get("completed"):
            store.clear()
            return Resumption(store)
        if not options.resume:
            raise PlanError(
                f"{options.checkpoint} holds checkpoint {snapshot.number} of a run that did not end; go on from it with "
                "resume=True (--resume), or remove it to begin anew"
            )
        found = changes(snapshot.manifest["graph"], describe_plan(plan))
        if found:
            raise CheckpointError(
                f"checkpoint {snapshot.number} in {options.checkpoint} is of another version of this pipeline: "
                f"{'; '.join(found)}. Run the version it is of, or begin anew with another folder"
            )
        states = {node.id: decode_state(snapshot.part(node.id)) for node in plan.nodes}
    except BaseException:
        store.close()
        raise
    return Resumption(store, snapshot, states)


def completed_report(options: RunOptions) -> Report | None:
    """The report of the run in ``options.checkpoint`` if it has completed, so that nothing is left to resume."""
    if options.checkpoint is None:
        return None
    store = CheckpointStore(options.checkpoint, read_only=True)
    try:
        snapshot = store.latest()
        if snapshot is not None and snapshot.manifest.get("completed"):
            return Report(dict(snapshot.manifest["report"]))
    finally:
        store.close()
    return None
