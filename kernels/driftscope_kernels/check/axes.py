"""What is varied: for every axis, the placements whose rows must equal those of the plain call."""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_kernels.check.placement import LAYOUTS, NEIGHBOURS, Placement

#: Every size up to a vector of 16 and the first behind it: micro-kernels and their remainders.
DENSE_SIZES = tuple(range(1, 18))
#: Around the powers of two, where tiles and tuned configurations change.
EDGE_SIZES = tuple(2**power + step for power in (5, 6, 7, 8) for step in (-1, 0, 1))
QUICK_ROWS, FULL_ROWS = 65, 257
CHUNKS = (1, 2, 3, 7, 16, 64)
REPEATS = 8
QUERY_CHUNKS = (1, 7, 16, 64)
PAGE_SIZES = (32, 64, 128)
SEEDS = (1, 2, 3)

#: In the order in which a counterexample is looked for: the batch first.
AXES = (
    *("batch_size", "position", "permutation", "neighbours", "split", "run_to_run"),
    *("layout", "threads", "query_chunk", "page_order", "page_size"),
)


#: Axes that compare with the plain call of the same batch size, so that each varies one thing.
SAME_SIZE = frozenset(AXES) - {"batch_size", "split"}


def batch_sizes(rows: int) -> tuple[int, ...]:
    return tuple(size for size in (*DENSE_SIZES, *EDGE_SIZES) if size <= rows)


def axes(
    rows: int, *, threads: int, layouts: bool, attention_length: int | None, paged: bool
) -> Mapping[str, tuple[Placement, ...]]:
    """Placements per axis, for a case of `rows` rows in all.

    `attention_length`: query tokens of an attention case, None for other ops. `layouts`: whether
    the op is defined on any layout; `paged`: whether the keys and values lie in pages.
    """
    sizes = batch_sizes(rows)
    found = {
        "batch_size": tuple(Placement(size) for size in sizes if size < rows),
        "position": _positions(rows),
        "permutation": tuple(
            Placement(count, shuffle=seed)
            for count in (5, 16, rows)
            if count <= rows
            for seed in SEEDS
        ),
        "neighbours": _neighbours(rows),
        "split": tuple(Placement(rows, chunk=chunk) for chunk in CHUNKS if chunk < rows),
        "run_to_run": (Placement(rows, repeat=REPEATS), Placement(1, repeat=REPEATS)),
    }
    if layouts:
        found["layout"] = tuple(
            Placement(count, layout=layout)
            for count in (1, 8, rows)
            if count <= rows
            for layout in LAYOUTS[1:]
        )
    if threads > 1:
        found["threads"] = tuple(Placement(size, threads=1) for size in (*sizes[:9], rows))
    if attention_length is not None:
        found["query_chunk"] = tuple(
            Placement(rows, query=chunk) for chunk in QUERY_CHUNKS if chunk < attention_length
        )
    if paged:
        found["page_order"] = tuple(Placement(rows, page_order=seed) for seed in SEEDS)
        found["page_size"] = tuple(Placement(rows, page_size=size) for size in PAGE_SIZES)
    return found


def _positions(rows: int) -> tuple[Placement, ...]:
    """Windows of one size that begin elsewhere: the rows of both stand at other places."""
    return tuple(
        Placement(count, start=start)
        for count in (2, 4, 8, 16, 17, 33)
        for start in (1, 2, 3, 5, 7)
        if start < count and start + count <= rows
    )


def _neighbours(rows: int) -> tuple[Placement, ...]:
    return tuple(
        Placement(count, neighbours=content, kept=kept)
        for count in (5, 16, 33)
        if count <= rows
        for content in NEIGHBOURS
        for kept in (0, 3, count - 1)
    )
