"""TensorFlow's protobuf messages: declared in a table, parsed by protobuf itself.

The fields are those of tensorflow/core/protobuf/{tensor_bundle,trackable_object_graph,saved_model,meta_graph,
saved_object_graph}.proto, of tensorflow/core/framework/tensor_shape.proto and of tf_keras/protobuf/saved_metadata.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from lstmserve_server.core import protobuf
from lstmserve_server.core.errors import UnsupportedModelError

# Enumerations are int32 here, and messages of which only the presence matters, or that may be very many, are bytes: the same on
# the wire. A file of 32 MB has room for 16 million empty messages, which would take 1.6 GB; as bytes they are counted first.
_MESSAGES: Final = {
    "BundleHeader": "int32 num_shards = 1; int32 endianness = 2",
    "BundleEntry": "int32 dtype = 1; TensorShape shape = 2; int32 shard_id = 3; int64 offset = 4; int64 size = 5; "
    "fixed32 crc32c = 6; bytes* slices = 7",
    "TensorShape": "Dimension* dim = 2; bool unknown_rank = 3",
    "Dimension": "int64 size = 1",
    "ObjectGraph": "bytes* nodes = 1",
    "TrackedObject": "Child* children = 1; SerializedTensor* attributes = 2",
    "Child": "int32 node_id = 1; string local_name = 2",
    "SerializedTensor": "string name = 1; string full_name = 2; string checkpoint_key = 3",
    "KerasMetadata": "bytes* nodes = 1",
    "KerasObject": "int32 node_id = 2; string node_path = 3; string identifier = 4; string metadata = 5",
    "SavedModel": "MetaGraph* meta_graphs = 2",
    "MetaGraph": "SavedObjectGraph object_graph_def = 7",
    "SavedObjectGraph": "bytes* nodes = 1",
    "SavedObject": "Child* children = 1; UserObject user_object = 4",
    "UserObject": "string identifier = 1; string metadata = 3",
}


_CLASSES: Final = protobuf.declare("lstmserve.tensorflow", _MESSAGES)


def parse(message: str, content: bytes, what: str) -> Any:
    """Returns `content` decoded as the message of that name in the table; `what` names it in errors.

    Raises:
        UnsupportedModelError: it is not such a message.
    """
    try:
        return _CLASSES[message].FromString(content)
    except (DecodeError, RecursionError, UnicodeError) as error:
        text = f"{what} cannot be decoded as TensorFlow's {message}: {error}. The file is damaged, or was cut off"
        raise UnsupportedModelError(text) from error


def parse_all(message: str, contents: Sequence[bytes], most: int, what: str) -> list[Any]:
    """Returns each of `contents` decoded as the message of that name, after they were found not too many.

    Raises:
        UnsupportedModelError: they are more than `most`, or one of them is not such a message.
    """
    if len(contents) > most:
        text = f"{what} has {len(contents)} nodes; expected at most {most}"
        raise UnsupportedModelError(text)
    return [parse(message, content, what) for content in contents]
