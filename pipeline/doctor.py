"""A report as a page that a tired engineer can act on: what happened, what was lost, what the accelerator waited for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .options import readable_bytes
from .report import Report

__all__ = ["diagnosis", "table"]

#: What to try first for each cause of waiting.
_ADVICE = {
    "source": "the input does not come fast enough: read in parallel, from faster storage, or from fewer files at once",
    "decode": "decoding is the bottleneck: raise parallelism, decode smaller, or cache decoded frames",
    "sync": "one stream lags behind the other: lower its lateness, or raise the tolerance",
    "batch fill": "rows come at their own pace and the batch waits for them: a smaller batch, or max_age",
    "transfer": "moving into the last hop takes the time: a deeper prefetch, or uint8 columns normalised on the device",
    "compute": "a stateful step is the bottleneck: give it fewer rows, or split it by key",
    "backpressure": "what comes behind the model is slower than the model: a faster sink, or larger files",
}


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, indent: str = "  ") -> str:
    """Columns aligned: the first to the left, numbers to the right."""
    body = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headings), *body]) for i in range(len(headings))]
    lines = []
    for line in [list(headings), *body]:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def diagnosis(report: Report) -> str:
    """The report in words and tables."""
    data = report.data
    parts = [_headline(data), _stages(data)]
    parts += [_lost(data), _sinks(data), _accelerator(data), _memory(data)]
    if data["stalls"]:
        parts.append("stalls\n" + "\n".join(f"  {line}" for line in data["stalls"]))
    return "\n\n".join(part for part in parts if part)


def _headline(data: dict[str, Any]) -> str:
    first = f", first batch after {data['first_batch_s']:.2f} s" if data["first_batch_s"] is not None else ""
    latency = data["latency_ms"]
    text = f"{data['outcome']} on the {data['runner']} runner in {data['elapsed_s']:.2f} s{first}"
    if data["error"]:
        text += f"\n  {data['error']}"
    if latency["batches"]:
        text += f"\n  latency of a batch, source to sink: p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"
    if data["replay"]:
        text += (
            f"\n  replayed at {data['replay']['speed']:g}x, at most {data['replay']['largest_lag_ms']:.1f} ms behind"
        )
    return text


def _stages(data: dict[str, Any]) -> str:
    rows = [
        (
            step,
            f"{s['rows_in']:,}",
            f"{s['rows_out']:,}" if s["kind"] != "write" else "",
            readable_bytes(s["bytes_in"]),
            f"{s['busy_s']:.2f}",
            f"{s['wait_input_s']:.2f}",
            f"{s['wait_output_s']:.2f}",
            readable_bytes(s["bytes_copied"]) if s["bytes_copied"] else "",
        )
        for step, s in data["stages"].items()
    ]
    head = ("step", "rows in", "rows out", "bytes in", "busy s", "wait in s", "wait out s", "copied")
    return (
        "steps\n"
        + table(head, rows)
        + f"\n  {data['copies_per_delivered_byte']:.2f} bytes copied for each byte delivered"
    )


def _lost(data: dict[str, Any]) -> str:
    lines = [
        f"  {count:,} rows at {step}: {reason}"
        for step, reasons in data["dropped"].items()
        for reason, count in reasons.items()
    ]
    if data["late_rows"]:
        lines.append(f"  {data['late_rows']:,} rows came too late for their window")
    if data["quarantined"]:
        lines.append(f"  {data['quarantined']:,} bad records in quarantine, the first of them:")
        lines += [f"    {r['step']}: {r['place']}: {r['error']}" for r in data["quarantine"][:5]]
    lines += [
        f"  {count:,} at {step}: {what}" for step, notes in data["noted"].items() for what, count in notes.items()
    ]
    return "rows that left\n" + "\n".join(lines) if lines else "rows that left\n  none"


def _sinks(data: dict[str, Any]) -> str:
    rows = [
        (s["target"], f"{s['rows']:,}", readable_bytes(s["bytes"]), s["digest"] or "") for s in data["sinks"].values()
    ]
    return "written\n" + table(("to", "rows", "bytes", "digest"), rows)


def _accelerator(data: dict[str, Any]) -> str:
    hop = data["accelerator"]
    if hop is None:
        return ""
    lines = [
        f"accelerator ({hop['step']})",
        f"  {hop['rows']:,} rows in {hop['batches']:,} batches, {hop['rows_per_s']:,.1f} rows/s",
        f"  busy {hop['busy_s']:.2f} s, waiting {hop['wait_s']:.2f} s ({hop['wait_share']:.1%} of its time), "
        f"first batch after {hop['start_s']:.2f} s",
    ]
    if hop["ceiling_rows_per_s"]:
        ceiling, reached = hop["ceiling_rows_per_s"], hop["ceiling_ratio"]
        lines.append(f"  with cached input it does {ceiling:,.1f} rows/s: this run reached {reached:.0%}")
    lines += [f"  {key}: {_short(value)}" for key, value in hop["model"].items()]
    waits = [entry for entry in hop["ledger"] if entry["ms"] >= 0.05]
    if waits:
        lines.append("  what it waited for")
        lines.append(
            table(("step", "cause", "ms"), [(e["step"], e["cause"], f"{e['ms']:,.1f}") for e in waits], indent="    ")
        )
        if hop["wait_share"] > 0.02:
            lines.append(f"  first: {_ADVICE.get(waits[0]['cause'], 'look at that step')}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_short(inner) for inner in value)
    return str(value)


def _memory(data: dict[str, Any]) -> str:
    memory = data["memory"]
    return (
        f"memory: {readable_bytes(memory['peak_data_bytes'])} of batches and buffers at most (bound "
        f"{readable_bytes(memory['bound_bytes'])}), process {readable_bytes(memory['peak_rss_bytes'])}"
    )
