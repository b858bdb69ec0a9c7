"""YAML that strangers wrote → plain values: in C for speed, and without what can bring a host down.

In: text. Out: dicts, lists and scalars; times stay texts, and a tag of others ("!include x") is
taken off. Raises yaml.YAMLError, ValueError and whatever Python says of "!!int x".
"""

from __future__ import annotations

from typing import Any, Final

import yaml

#: The C loader recurses without a check: 100,000 brackets end the process.
DEEPEST: Final = 100


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    def flatten_mapping(self, node: Any) -> None:
        """Keys once each: "<<" of ten copies of ten copies … would grow without end."""
        super().flatten_mapping(node)
        once = {
            key.value if isinstance(key, yaml.ScalarNode) else id(key): (key, value)
            for key, value in node.value
        }
        node.value = list(once.values())


def _untagged(loader: Any, suffix: str, node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_Loader.add_multi_constructor("!", _untagged)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: node.value)


def load_yaml(text: str) -> Any:
    """Of one document."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    return yaml.load(text, Loader=_Loader)
