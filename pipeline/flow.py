"""A closed pipeline: streams that end in sinks, ready to be explained and run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import PlanError
from .graph import Graph, Step
from .options import RunOptions

if TYPE_CHECKING:
    from .plan import Plan
    from .report import Report
    from .watch import Progress

__all__ = ["Flow"]

Runner = Literal["inline", "local", "ray"]


class Flow:
    """One or more sinks with everything behind them. ``a + b`` is the flow that writes both in one run."""

    __slots__ = ("steps",)

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps

    def __add__(self, other: Flow) -> Flow:
        return Flow((*self.steps, *other.steps))

    @property
    def graph(self) -> Graph:
        """The graph with its step ids."""
        return Graph(self.steps)

    def plan(self, options: RunOptions | None = None) -> Plan:
        """What would run. Raises PlanError if its memory bound exceeds the budget."""
        from .bound import check_budget
        from .planning import build_plan

        options = options or RunOptions()
        plan = build_plan(self.graph, options.threads)
        check_budget(plan, options)
        return plan

    def explain(self, format: str = "text", **options: Any) -> str:
        """The plan as ``text`` or ``mermaid``: steps, schemas, threads, the memory bound, and where bytes are copied."""
        from .explain import explain

        return explain(self.graph, RunOptions(**options), format)

    def run(
        self,
        *,
        runner: Runner | None = None,
        ray: str | None = None,
        report: str | Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        **options: Any,
    ) -> Report:
        """Run to the end and return the report (also written to `report` as JSON, even if the run fails or is stopped).

        `runner` is ``"local"`` (default), ``"inline"`` or ``"ray"``. `ray` is the address of a cluster (``"auto"``: the one
        of this machine or job; ``"local"``: a new one for this run) and makes the runner ``"ray"``.

        `options` are those of `RunOptions`: parallelism, memory, edge_bytes, on_error, quarantine, speed, clock,
        stall_after, ceiling, checkpoint, checkpoint_every, checkpoint_rows, resume. Raises RunError, naming the step, if
        it fails; nothing is left under a final name then.
        """
        chosen = runner or ("local" if ray is None else "ray")
        if ray is not None and chosen != "ray":
            raise PlanError(f"ray={ray!r} is the address of a cluster, the runner {chosen!r} has none")
        checked = RunOptions(**options)
        if checked.resume:
            from .resume import completed_report

            if (done := completed_report(checked)) is not None:
                return done
        if chosen == "ray":
            from .cluster.run import run_on_ray

            return run_on_ray(self.graph, checked, ray or "auto", progress, report)
        from .run import run

        return run(self.graph, chosen, checked, progress, report)

    def __reduce__(self) -> tuple[type[Flow], tuple[tuple[Step, ...]]]:
        return Flow, (self.steps,)

    def __repr__(self) -> str:
        return f"Flow({' '.join(name for name, _ in self.graph)})"
