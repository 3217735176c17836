"""The object graph that TensorFlow saves with variables: which object holds which, and under what name.

A graph may have cycles; it is only walked along paths of given length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.formats.tensorflow import protos
from lstmserve_server.loading.store.limits import LoadLimits

_MAX_DEPTH: Final = 64
_VALUE: Final = "VARIABLE_VALUE"
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,6}")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the graph."""

    key: str
    """Its name in the checkpoint."""

    full_name: str
    """The name that it was made with, such as "lstm_1/lstm_cell/kernel"; good for errors and cross-checks only."""

    @property
    def own_name(self) -> str:
        """The last part of its name, such as "kernel"."""
        return self.full_name.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]


class ObjectGraph:
    """Nodes by number; 0 is the root."""

    ROOT: Final = 0

    def __init__(self, children: Sequence[Mapping[str, int]], variables: Mapping[int, Variable]) -> None:
        self._children = children
        self._variables = variables

    @classmethod
    def decode(cls, content: bytes, limits: LoadLimits) -> Self:
        """Returns the graph of a checkpoint.

        Raises:
            UnsupportedModelError: it is not a graph, or its nodes name others that do not exist, or two by one name.
        """
        what = "the object graph of the checkpoint"
        encoded = protos.parse("ObjectGraph", content, what).nodes
        nodes = protos.parse_all("TrackedObject", encoded, limits.nodes, what)
        variables: dict[int, Variable] = {}
        for number, node in enumerate(nodes):
            for attribute in node.attributes:
                if attribute.name == _VALUE and number in variables:
                    message = f"the object graph gives two values to {attribute.full_name!r}. The file is damaged"
                    raise UnsupportedModelError(message)
                if attribute.name == _VALUE:
                    variables[number] = Variable(attribute.checkpoint_key, attribute.full_name)
        return cls.of_nodes(nodes, variables)

    @classmethod
    def of_nodes(cls, nodes: Sequence[Any], variables: Mapping[int, Variable]) -> Self:
        """Returns the graph of decoded nodes; see `decode`."""
        if not nodes:
            message = "the object graph has no nodes; it is damaged"
            raise UnsupportedModelError(message)
        every = []
        for node in nodes:
            children = {child.local_name: child.node_id for child in node.children}
            if len(children) < len(node.children) or not all(0 <= child < len(nodes) for child in children.values()):
                message = (
                    "the object graph has a node that names two others alike, or one that does not exist; it is damaged"
                )
                raise UnsupportedModelError(message)
            every.append(children)
        return cls(every, variables)

    def children(self, node: int) -> Mapping[str, int]:
        """Returns the children of a node, by name."""
        return self._children[node]

    def walk(self, node: int, path: Iterable[str]) -> int | None:
        """Returns the node at the end of a path; None if there is none."""
        at: int | None = node
        for name in path:
            at = None if at is None else self._children[at].get(name)
        return at

    def variable(self, node: int) -> Variable | None:
        """Returns the variable of a node; None if it is not a variable."""
        return self._variables.get(node)

    def numbered(self, node: int, prefix: str = "") -> dict[int, int]:
        """Returns the children named `prefix` and a number, as TensorFlow names list items; there may be gaps."""
        found = {
            int(name[len(prefix) :]): child
            for name, child in self._children[node].items()
            if name.startswith(prefix) and _NUMBER.fullmatch(name, len(prefix))
        }
        return dict(sorted(found.items()))

    def paths(self) -> dict[int, tuple[str, ...]]:
        """Returns one shortest path from the root to each node that is reached by a path of at most 64 names."""
        paths: dict[int, tuple[str, ...]] = {self.ROOT: ()}
        rest = [self.ROOT]
        for node in rest:  # grows while it is read
            for name, child in self._children[node].items():
                if (
                    child not in paths and len(paths[node]) < _MAX_DEPTH
                ):  # a chain of all nodes would take their number squared
                    paths[child] = (*paths[node], name)
                    rest.append(child)
        return paths
