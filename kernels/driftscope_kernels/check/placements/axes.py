"""What is varied: for every axis, the placements whose rows must equal those of the plain call."""

from __future__ import annotations

from collections.abc import Mapping

from driftscope_kernels.check.placements.placement import LAYOUTS, NEIGHBOURS, PADDINGS, Placement

#: Every size up to a vector of 16 and the first behind it: micro-kernels and their remainders.
DENSE_SIZES = tuple(range(1, 18))
#: Around the powers of two, where tiles and tuned configurations change.
EDGE_SIZES = tuple(2**power + step for power in (5, 6, 7, 8) for step in (-1, 0, 1))
QUICK_ROWS, FULL_ROWS = 65, 257
CHUNKS = (1, 2, 3, 7, 16, 64)
REPEATS = 8
QUERY_CHUNKS = (1, 7, 16, 64)
#: Tokens that a prompt is cut to: within a tile of 64 keys, and one behind it.
CONTEXTS = (16, 33, 65)
PAGE_SIZES = (32, 64, 128)
SEEDS = (1, 2, 3)
#: Rows of the blocks in which weight gradients are summed: cuts at multiples of it must not show.
ROW_BLOCK = 64
MICRO_BATCHES = tuple(ROW_BLOCK * blocks for blocks in (1, 2, 3, 4, 5, 8))
#: Hash seeds of the fresh processes; each makes the call twice, cold and warm.
PROCESSES, PROCESS_CALLS = (1, 2), 2
FRESH_PROCESS = "fresh_process"
BATCH_SIZE = "batch_size"

#: In the order in which a counterexample is looked for: the batch first.
AXES = (
    *("batch_size", "micro_batch", "position", "permutation", "neighbours", "split", "run_to_run"),
    *("layout", "threads", "query_chunk", "context", "page_order", "page_size", "padding"),
)


#: Axes that compare with the plain call of the same batch size, so that each varies one thing.
SAME_SIZE = frozenset(AXES) - {"batch_size", "split"}


def batch_sizes(rows: int) -> tuple[int, ...]:
    return tuple(size for size in (*DENSE_SIZES, *EDGE_SIZES) if size <= rows)


def axes(
    rows: int,
    *,
    threads: int,
    layouts: bool,
    attention_length: int | None = None,
    paged: bool = False,
    constants: bool = False,
    tokens: int | None = None,
) -> Mapping[str, tuple[Placement, ...]]:
    """Placements per axis, for a case of `rows` rows in all.

    `attention_length`: query tokens of an attention case, None for other ops. `layouts`: whether
    the op is defined on any layout; `paged`: whether the keys and values lie in pages; `constants`:
    whether there are inputs that all rows share; `tokens`: of a weight gradient, else None.
    """
    if tokens is not None:
        return _of_weight_gradient(rows, tokens, threads)
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
    if layouts and constants:
        found["layout"] += _constants_laid_out(1) + _constants_laid_out(rows)
    if threads > 1:
        found["threads"] = tuple(Placement(size, threads=1) for size in (*sizes[:9], rows))
    if attention_length is not None:
        found["query_chunk"] = tuple(
            Placement(rows, query=chunk) for chunk in QUERY_CHUNKS if chunk < attention_length
        )
        found["context"] = tuple(
            Placement(rows, context=length, query=chunk)
            for length in CONTEXTS
            if length < attention_length
            for chunk in (None, QUERY_CHUNKS[1])
        )
    if paged:
        found["page_order"] = tuple(Placement(rows, page_order=seed) for seed in SEEDS)
        found["page_size"] = tuple(Placement(rows, page_size=size) for size in PAGE_SIZES)
        found["padding"] = tuple(Placement(rows, padding=content) for content in PADDINGS)
    return found


def _of_weight_gradient(
    rows: int, tokens: int, threads: int
) -> Mapping[str, tuple[Placement, ...]]:
    found = {
        "run_to_run": (Placement(rows, repeat=REPEATS),),
        "layout": _constants_laid_out(rows),
        "micro_batch": tuple(
            Placement(rows, micro_batch=size) for size in MICRO_BATCHES if size < tokens
        ),
    }
    if threads > 1:
        found["threads"] = (Placement(rows, threads=1),)
    return found


def _constants_laid_out(rows: int) -> tuple[Placement, ...]:
    return tuple(Placement(rows, constants=layout) for layout in LAYOUTS[1:])


def fresh_processes(rows: int) -> tuple[Placement, ...]:
    """The plain call again, in processes of their own; compared apart, since they cost seconds."""
    return tuple(Placement(rows, process=seed, repeat=PROCESS_CALLS) for seed in PROCESSES)


def _positions(rows: int) -> tuple[Placement, ...]:
    """Windows of one size with different starts: each shared row has a different index."""
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
