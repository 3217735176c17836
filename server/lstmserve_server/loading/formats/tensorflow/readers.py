"""Reads the SavedModels of tf.keras and of `model.export`, and checkpoints.

| written by | layers and version | weights |
|---|---|---|
| tf.keras >= 2.5 `model.save(folder)` | keras_metadata.pb | along `layer-K` from the root |
| tf.keras 2.0 to 2.4 `model.save(folder)` | metadata of the root in saved_model.pb | the same |
| `model.save_weights(prefix)`, `tf.train.Checkpoint` | not in the file: architecture | along `layer-K` or `_operations/K` |
| `model.export(folder)` | not in the file: architecture | in order, `variables/K`, and by full name |
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import KerasFile, WeightSource
from lstmserve_server.loading.config import keras_config
from lstmserve_server.loading.config.keras_config import ModelConfig
from lstmserve_server.loading.containers import safe_json
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats import architecture
from lstmserve_server.loading.formats.tensorflow import protos, sstable
from lstmserve_server.loading.formats.tensorflow.checkpoint import Checkpoint
from lstmserve_server.loading.formats.tensorflow.object_graph import ObjectGraph
from lstmserve_server.loading.formats.tensorflow.weights import ExportedWeights, TrackedWeights, layers_of
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.spec import Source

SAVED_MODEL: Final = "saved_model.pb"
INDEX_ENDING: Final = sstable.MAGIC
"""How the index of a checkpoint ends; nothing marks its beginning."""

_METADATA, _VARIABLES = "keras_metadata.pb", "variables/variables"

_KerasObjects = dict[tuple[str, ...], str]
"""What Keras keeps of its objects, as JSON, by their path from the root."""


@contextlib.contextmanager
def read_saved_model(place: ModelSource) -> Iterator[KerasFile]:
    """Opens the model in the folder of a SavedModel.

    Raises:
        UnsupportedModelError: it is not a model of Keras that can be read.
    """
    objects = _keras_objects(place)
    if not place.has(f"{_VARIABLES}.index"):
        message = f"the folder has no {_VARIABLES}.index; expected a SavedModel with its weights"
        raise UnsupportedModelError(message)
    with Checkpoint.open(place, _VARIABLES) as bundle:
        graph = ObjectGraph.decode(bundle.object_graph(), place.limits)
        if () in objects:
            config, version = _root(objects[()], place.limits)
            weights: WeightSource = TrackedWeights(bundle, graph, config, kept=_kept(objects, graph, place.limits))
            yield KerasFile(config, weights, Source(place.name, "tf-savedmodel", version))
            return
        found = architecture.required(place, "the SavedModel")
        if ExportedWeights.are_in(graph) and not layers_of(graph, graph.ROOT).nodes:
            weights = ExportedWeights(bundle, graph, found.config)
        else:
            weights = TrackedWeights(bundle, graph, found.config, in_order=found.given)
        yield KerasFile(found.config, weights, Source(place.name, "tf-savedmodel", found.version))


@contextlib.contextmanager
def read_checkpoint(place: ModelSource, index: str) -> Iterator[KerasFile]:
    """Opens the model in a checkpoint, `index` and the files of its arrays, whose layers the architecture names.

    Raises:
        UnsupportedModelError: it is not a checkpoint of a Keras model, or no architecture is found for it.
    """
    if not index.endswith(".index"):
        message = f"this is the index of a TensorFlow checkpoint, called {index}; expected PREFIX.index alongside PREFIX.data-..."
        raise UnsupportedModelError(message)
    found = architecture.required(place, "the checkpoint")
    with Checkpoint.open(place, index.removesuffix(".index")) as bundle:
        graph = ObjectGraph.decode(bundle.object_graph(), place.limits)
        weights = TrackedWeights(bundle, graph, found.config, in_order=found.given)
        yield KerasFile(found.config, weights, Source(place.name, "tf-checkpoint", found.version))


def _keras_objects(place: ModelSource) -> _KerasObjects:
    """Returns the metadata of the Keras objects in a SavedModel; without a root, at (), it is not a Keras model."""
    if place.has(_METADATA):
        encoded = protos.parse("KerasMetadata", _content(place, _METADATA), _METADATA).nodes
        kept = protos.parse_all("KerasObject", encoded, place.limits.nodes, _METADATA)
        return {tuple(node.node_path.split(".")[1:]): node.metadata for node in kept}
    graphs = protos.parse("SavedModel", _content(place, SAVED_MODEL), SAVED_MODEL).meta_graphs
    if len(graphs) != 1:
        message = f"{SAVED_MODEL} holds {len(graphs)} graphs; expected one, as Keras writes it"
        raise UnsupportedModelError(message)
    nodes = protos.parse_all("SavedObject", graphs[0].object_graph_def.nodes, place.limits.nodes, SAVED_MODEL)
    if not nodes:
        message = (
            f"{SAVED_MODEL} has no objects, as those of TensorFlow 1. Save the model again: model.save('model.keras')"
        )
        raise UnsupportedModelError(message)
    paths = ObjectGraph.of_nodes(nodes, {}).paths()
    return {
        path: nodes[number].user_object.metadata
        for number, path in paths.items()
        if nodes[number].user_object.identifier.startswith("_tf_keras_") and nodes[number].user_object.metadata
    }


def _root(metadata: str, limits: LoadLimits) -> tuple[ModelConfig, str]:
    """Returns the configuration of a model and the version of the Keras that wrote it."""
    whole = _without_tuples(safe_json.parse(metadata, "the metadata of the model", limits))
    version = architecture.checked_version(whole.get("keras_version"))
    inner = whole.get("model_config", whole)
    return keras_config.parse(inner if isinstance(inner, dict) else whole, limits), version


def _kept(objects: _KerasObjects, graph: ObjectGraph, limits: LoadLimits) -> Mapping[int, tuple[str, str]]:
    """Returns class and name of the layer at each node, as far as the metadata has them."""
    kept: dict[int, tuple[str, str]] = {}
    for path, metadata in objects.items():
        node = graph.walk(graph.ROOT, path)
        if node is None or not path or not path[-1].startswith("layer"):
            continue
        parsed = safe_json.parse(metadata, f"the metadata of {'.'.join(path)}", limits)
        kind, name = parsed.get("class_name"), parsed.get("name")
        if isinstance(kind, str) and isinstance(name, str):
            kept[node] = kind, name
    return kept


def _without_tuples(value: Any) -> Any:
    """Returns the metadata with lists in place of serialized tuples and shapes."""
    if isinstance(value, list):
        return [_without_tuples(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
        return _without_tuples(value["items"])
    return {key: _without_tuples(item) for key, item in value.items()}


def _content(place: ModelSource, name: str) -> bytes:
    """Returns the content of a file of the folder."""
    most = place.limits.index_bytes
    with place.open_sibling(name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        message = f"{name} is longer than {most} bytes"
        raise UnsupportedModelError(message)
    return content
