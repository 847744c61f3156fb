"""The tables of `bench.scale`."""

import statistics
from collections.abc import Iterator, Sequence

from bench.report import Rows
from bench.scale_measures import Burst, Figures, Population, Singles


def sections(figures: Figures) -> Iterator[tuple[str, Rows]]:
    """Title and rows of each table that has something in it."""
    if figures.singles:
        yield f"Single applies, {len(figures.singles.posts)} of them", _singles(figures.singles)
    if figures.bursts:
        yield "Bursts, in seconds since the first POST", _bursts(figures.bursts)
    if figures.populations:
        title = f"Many deployments ({figures.memory_empty:.0f} MiB with none)"
        yield title, _populations(figures.populations)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies, such as 0.99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _singles(singles: Singles) -> Rows:
    rows: Rows = [("", "p50", "p99", "most")]
    for name, values in (
        ("POST of the ModelDeployment", singles.posts),
        ("apply → Deployment", singles.deployments),
    ):
        figures = statistics.median(values), percentile(values, 0.99), max(values)
        rows.append((name, *(f"{1000 * value:.1f} ms" for value in figures)))
    return rows


def _bursts(bursts: Sequence[Burst]) -> Rows:
    head: tuple[str, ...] = ("objects", "posted alone", "posted", "last Deployment")
    head += ("ratio to posted", "to alone", "last Service")
    return [
        head,
        *(
            (
                str(each.count),
                f"{each.raw:.2f}",
                f"{each.posted:.2f}",
                f"{each.deployments:.2f}",
                f"{each.deployments / each.posted:.2f}",
                f"{each.deployments / each.raw:.2f}",
                f"{each.complete:.2f}",
            )
            for each in bursts
        ),
    ]


def _populations(populations: Sequence[Population]) -> Rows:
    heads = [f"{each.count}" for each in populations]
    lines = {
        "watched objects in all": [f"{p.objects}" for p in populations],
        "all Ready after": [f"{p.filled:.0f} s" for p in populations],
        "restart → first change carried out": [f"{p.first:.1f} s" for p in populations],
        "restart → last change carried out": [f"{p.last:.1f} s" for p in populations],
        "memory, resident, after the restart": [f"{p.memory:.0f} MiB" for p in populations],
        "the same after the idle time": [f"{p.memory_idle:.0f} MiB" for p in populations],
        "processor time while idle": [f"{p.cpu / p.idle_seconds:.2%}" for p in populations],
        "seconds of it": [f"{p.cpu:.1f} in {p.idle_seconds:.0f} s" for p in populations],
        "writes while idle": [f"{p.writes}" for p in populations],
        "load of the machine": [f"{p.load:.1f}" for p in populations],
    }
    return [("ModelDeployments", *heads), *((name, *row) for name, row in lines.items())]
