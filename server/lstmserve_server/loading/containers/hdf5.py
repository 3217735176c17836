"""Reads untrusted HDF5 files through h5py: groups, attributes and arrays, nothing else.

HDF5 can lead a reader out of the file (external links, external storage, virtual datasets) and declare arrays that are not there.
Every name is resolved link by link, and the metadata of an array is checked before it is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.store import arrays
from lstmserve_server.loading.store.arrays import ArrayStore
from lstmserve_server.loading.store.limits import LoadLimits

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"

# What h5py and HDF5 raise over damaged files (measured over 16,000 mutated ones).
_DAMAGE: Final = (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, MemoryError, OverflowError)

# Reorder bytes, deflate, check sums: HDF5's own, without plugins.
_FILTERS: Final = {
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
}


class Group:
    """A group of an HDF5 file. All methods raise `UnsupportedModelError` if the file holds something else than expected."""

    def __init__(self, group: h5py.Group, path: str, limits: LoadLimits, store: ArrayStore) -> None:
        self._group = group
        self._limits = limits
        self._store = store
        self.path = path
        """Where it is in the file, for errors."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, file: BinaryIO, limits: LoadLimits, store: ArrayStore) -> Iterator[Self]:
        """Opens the root group of an HDF5 file, whose arrays will be put into `store`."""
        with _damage_refused("the file"):
            root = h5py.File(file, "r")
        with root:
            yield cls(root, "", limits, store)

    def __contains__(self, name: str) -> bool:
        with _damage_refused(f"{self.path}/{name}"):
            return name in self._group

    def names(self) -> list[str]:
        """Returns the names of the members."""
        with _damage_refused(self.path or "/"):
            names = list(self._group)
        if not all(isinstance(name, str) for name in names):
            message = f"{self.path or '/'} has members whose names are not text"
            raise UnsupportedModelError(message)
        return names

    def group(self, name: str) -> Group:
        """Returns the group at `name`, a path of one or more parts."""
        member = self._member(name)
        if not isinstance(member, h5py.Group):
            message = f"{self.path}/{name} is an array; expected a group"
            raise UnsupportedModelError(message)
        return Group(member, f"{self.path}/{name}", self._limits, self._store)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape that the array at `name` declares; nothing is allocated for it."""
        dataset = self._member(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            message = f"{self.path}/{name} is not an array; expected one"
            raise UnsupportedModelError(message)
        return tuple(dataset.shape)

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Returns the array at `name`, a path of one or more parts, after everything about it was found as expected.

        The array is C-contiguous, in native byte order, converted to `dtype` if that is wider than the stored type, and read-only.
        """
        path = f"{self.path}/{name}"
        dataset = self._member(name)
        if not isinstance(dataset, h5py.Dataset):
            message = f"{path} is a group; expected an array"
            raise UnsupportedModelError(message)
        with _damage_refused(path):
            _require_plain(dataset, path, shape, dtype)
            array = self._store.empty(shape, dtype)
            if dataset.dtype == arrays.BFLOAT16:
                arrays.widen_bfloat16(dataset[()], array)
            elif array.size:
                dataset.read_direct(array)
        return arrays.freeze(array, path)

    def attribute_names(self) -> list[str]:
        """Returns the names of the attributes."""
        with _damage_refused(f"the attributes of {self.path or '/'}"):
            return [str(name) for name in self._group.attrs]

    def text(self, name: str) -> str | None:
        """Returns an attribute that is text, or None where there is none of this name."""
        value = self._attribute(name, rank=0)
        return None if value is None else _as_text(value, self._attribute_path(name))

    def texts(self, name: str) -> list[str] | None:
        """Returns an attribute that is a list of texts, or None where there is none of this name.

        Keras splits a long list into attributes of the same name with 0, 1, 2 ... after it.
        """
        whole = self._attribute(name, rank=1)
        if whole is not None:
            return [_as_text(item, self._attribute_path(name)) for item in whole.tolist()]
        texts: list[str] = []
        for number in range(len(self._group.attrs)):
            part = self._attribute(f"{name}{number}", rank=1)
            if part is None:
                break
            texts += [_as_text(item, self._attribute_path(f"{name}{number}")) for item in part.tolist()]
        return texts or None

    def _attribute_path(self, name: str) -> str:
        return f"attribute {name} of {self.path or '/'}"

    def _attribute(self, name: str, rank: int) -> Any:
        """Returns an attribute of text, after checking its type and shape; None where there is none."""
        what = self._attribute_path(name)
        with _damage_refused(what):
            if name not in self._group.attrs:
                return None
            identifier = self._group.attrs.get_id(name)
            shape, dtype = identifier.shape, identifier.dtype
            size = identifier.get_storage_size() if shape is not None and 0 not in shape else 0
        is_text = dtype.kind == "S" or h5py.check_string_dtype(dtype) is not None
        if shape is None or len(shape) != rank or not (is_text or 0 in shape):  # an empty list is of any type
            message = (
                f"{what} is of type {dtype} and shape {shape}; expected {'a list of texts' if rank else 'one text'}"
            )
            raise UnsupportedModelError(message)
        if size > self._limits.attribute_bytes:
            message = f"{what} is {size} bytes long; expected at most {self._limits.attribute_bytes}"
            raise UnsupportedModelError(message)
        if 0 in shape:
            return np.empty(shape)
        with _damage_refused(what):
            return self._group.attrs[name]

    def _member(self, name: str) -> h5py.Group | h5py.Dataset:
        member, path = self._group, self.path
        for part in name.split("/"):
            path = f"{path}/{part}"
            with _damage_refused(path):
                if not isinstance(member, h5py.Group) or (
                    part not in ("", ".") and member.get(part, getlink=True) is None
                ):
                    message = f"{path} is missing. The file is damaged, or was cut off while it was written"
                    raise UnsupportedModelError(message)
                link = member.get(part, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    message = (
                        f"{path} is a link to another place ({type(link).__name__}), which Keras never writes; "
                        "nothing outside the file itself is opened"
                    )
                    raise UnsupportedModelError(message)
                member = member[part]
        return member


def _require_plain(dataset: h5py.Dataset, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Checks all that can be known of an array before a byte of it is read."""
    if dataset.shape != shape:
        message = f"{path} has the shape {dataset.shape}; expected {shape} from the configuration"
        raise UnsupportedModelError(message)
    arrays.require_type(dataset.dtype, dtype, path)
    if dataset.external or dataset.is_virtual:
        message = (
            f"{path} is stored outside the file, which Keras never does; nothing outside the file itself is opened"
        )
        raise UnsupportedModelError(message)
    create = dataset.id.get_create_plist()
    filters = [create.get_filter(i)[0] for i in range(create.get_nfilters())]
    for number in filters:
        if number not in _FILTERS or filters.count(number) > 1:  # deflated twice, a kilobyte becomes a gigabyte
            known = ", ".join(sorted(_FILTERS.values()))
            message = f"{path} is packed with the HDF5 filter {number}; expected none, or each at most once of {known}"
            raise UnsupportedModelError(message)
    stored, size = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if dataset.chunks is None and stored != size:
        message = (
            f"{path} declares {size} bytes and holds {stored}. The file is damaged, or was cut off while it was written"
        )
        raise UnsupportedModelError(message)
    if dataset.chunks is not None:
        expected = int(np.prod([-(-length // part) for length, part in zip(shape, dataset.chunks, strict=True)]))
        if dataset.id.get_num_chunks() != expected or int(np.prod(dataset.chunks)) > max(2 * dataset.size, 1 << 16):
            message = f"{path} declares {expected} chunks of {dataset.chunks} and holds {dataset.id.get_num_chunks()} for {shape}"
            raise UnsupportedModelError(message)


def _as_text(value: Any, what: str) -> str:
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
        text.encode("utf-8")  # h5py lets bytes that are not UTF-8 through as lone surrogates
    except UnicodeError as error:
        message = f"{what} is not text in UTF-8: {error}"
        raise UnsupportedModelError(message) from error
    return text


@contextlib.contextmanager
def _damage_refused(what: str) -> Iterator[None]:
    """Converts HDF5's exceptions for a damaged file into UnsupportedModelError."""
    try:
        yield
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        message = f"{what} cannot be read: {reason}. The file is damaged, or was cut off while it was written or copied"
        raise UnsupportedModelError(message) from error
