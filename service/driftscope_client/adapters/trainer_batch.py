"""What the adapters of the frameworks share: settings, required columns, and the push itself.

In: a trainer's own batch and configuration. Out: a push of whole sequences, with metadata that say
what both sides ran in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from driftscope_client.client import DriftscopeClient
from driftscope_client.errors import MalformedStep

#: Names of the metadata → where a configuration has the value.
SettingPaths = Mapping[str, Sequence[str]]
Tensors = dict[str, Any]


def _nothing(_config: Any) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class BatchAdapter:
    """Of one framework: how its batch becomes tensors, and what is known of both sides."""

    framework: str
    batch_tensors: Callable[[Any], Tensors]  # raises MalformedStep
    settings_of: Callable[[Any], Mapping[str, object]] = _nothing  # of a configuration, or None
    fixed: Mapping[str, object] = field(default_factory=dict)  # what no configuration changes

    def push_batch(
        self,
        client: DriftscopeClient,
        step: int,
        batch: Any,
        *,
        config: Any = None,
        metadata: Mapping[str, object] | None = None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        """Push one step. `batch` and `config` are the framework's own: its adapter says which.

        shard: (rank, ranks) of data parallelism, where each rank has its own sequences; without it
        this is the whole step. `metadata` goes before what `config` says. Never raises, unless the
        client is strict: a batch that makes no step counts as a failed push.
        """
        with client.undisturbed(step):
            tensors = self.batch_tensors(batch)
            described = {
                "framework": self.framework,
                "weights_version": step,
                **self.fixed,
                **self.settings_of(config),
                **(metadata or {}),
            }
            if shard is None:
                client.push(step, metadata=described, **tensors)
            else:
                client.push_shard(step, *shard, metadata=described, **tensors)


def setting(config: Any, *path: str) -> Any:
    """The entry of nested mappings or objects, or None where there is none."""
    for name in path:
        get = getattr(config, "get", None)  # OmegaConf's nodes and dicts
        config = get(name) if get is not None else getattr(config, name, None)
        if config is None:
            return None
    return config


def settings(config: Any, paths: SettingPaths) -> dict[str, object]:
    """Those that the configuration has."""
    told = {name: setting(config, *path) for name, path in paths.items()}
    return {name: value for name, value in told.items() if value is not None}


def present(batch: Any, names: Sequence[str], remedies: Mapping[str, str]) -> None:
    """Raises MalformedStep for the first of `names` that is absent or None, with its remedy."""
    for name in names:
        if _entry(batch, name) is None:
            has = [one for one in _names(batch) if _entry(batch, one) is not None]
            raise MalformedStep(
                f"the batch has no {name}; it has {', '.join(sorted(has))}.",
                remedy=remedies.get(name, f"push where the trainer has computed {name}."),
            )


def rows(columns: Mapping[str, Any], mask: Any) -> dict[str, list[Any]]:
    """Padded [sequences, longest] columns → one entry per sequence, from its first to its last
    unmasked token, and the mask. Sequences without any are left out: they are the batch's padding.
    """
    return _cut(columns, mask, spans(mask))


def _cut(
    columns: Mapping[str, Any], mask: Any, where: Sequence[slice | None]
) -> dict[str, list[Any]]:
    held = [(row, span) for row, span in enumerate(where) if span is not None]
    # Each column leaves its device once, rather than row by row.
    own = {name: column.detach().cpu() for name, column in {**columns, "mask": mask != 0}.items()}
    return {name: [column[row, span] for row, span in held] for name, column in own.items()}


def rows_of_next_tokens(columns: Mapping[str, Any], mask: Any) -> dict[str, list[Any]]:
    """As `rows`, with the prompts' lengths, of columns that each belong to the token after them:
    the column of the first response token is that of the last prompt token."""
    where = spans(mask)
    prompts = [span.start + 1 for span in where if span is not None]
    return {**_cut(columns, mask, where), "prompt_lengths": prompts}


def spans(mask: Any) -> list[slice | None]:
    """Of each row, from the first to the last unmasked token; None where there is none."""
    found: list[slice | None] = []
    for row in (mask != 0).cpu():
        places = row.nonzero().flatten().tolist()
        found.append(slice(places[0], places[-1] + 1) if places else None)
    return found


def joined(parts: Sequence[Mapping[str, list[Any]]]) -> Tensors:
    """Of several batches one, with the columns that each of them has."""
    if not parts:
        raise MalformedStep(
            "the batch is empty: there is no micro-batch in it.",
            remedy="push the list that the trainer trains on.",
        )
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: [entry for part in parts for entry in part[name]] for name in names}


def _entry(batch: Any, name: str) -> Any:
    if hasattr(batch, "keys"):
        return batch[name] if name in batch.keys() else None
    return getattr(batch, name, None)


def _names(batch: Any) -> list[str]:
    return list(batch.keys()) if hasattr(batch, "keys") else list(vars(batch))
