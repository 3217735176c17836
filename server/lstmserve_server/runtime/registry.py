"""The served models, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from lstmserve_server.core.errors import InvalidRequest, NoSuchModel, UnsupportedModelError, format_names
from lstmserve_server.loading.store.memory_files import SealedCopy
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Engine, Numerics
from lstmserve_server.model.spec import ModelSpec
from lstmserve_server.runtime import selftest


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that has passed its self-test."""

    name: str
    model: RecurrentModel
    digest: str
    fingerprint: str
    copy: SealedCopy | None = None
    """The file that it is from, for who compares it with Keras; None where no one does."""

    @classmethod
    def prepare(
        cls,
        name: str,
        description: ModelSpec,
        numerics: Numerics,
        engine: Engine = Engine.NUMPY,
        copy: SealedCopy | None = None,
    ) -> Self:
        """Prepares a model for serving.

        Raises:
            UnsupportedModelError: it fails the self-test, or its parts do not fit together.
        """
        try:
            model = RecurrentModel(description, numerics, engine)
            with ThreadPoolExecutor(1) as hashing:  # to hash many weights takes as long as to compute with them
                digest = hashing.submit(description.digest)
                return cls(name, model, fingerprint=selftest.run(model), digest=digest.result(), copy=copy)
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            message = (
                f"the model cannot be computed ({type(error).__name__}: {error}). The file is damaged, or this is a bug: "
                "report it"
            )
            raise UnsupportedModelError(message) from error


class Registry:
    """The served models by name."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models = {model.name: model for model in sorted(models, key=lambda model: model.name)}
        self._only = next(iter(self)) if len(self._models) == 1 else None

    def __iter__(self) -> Iterator[ServedModel]:
        """Iterates over the models in alphabetical order."""
        return iter(self._models.values())

    def find(self, name: str) -> ServedModel:
        """Returns the model with a name; "" means the only one.

        Raises:
            NoSuchModel: there is none of this name.
            InvalidRequest: the name is left out, and there are several.
        """
        served = self._models.get(name) or (None if name else self._only)
        if served is not None:
            return served
        names = format_names(self._models)
        if name:
            raise NoSuchModel("model", f"no model {name[:64]!r} is served; expected one of {names}")
        raise InvalidRequest(
            "model", f"got no name, and {len(self._models)} models are served; expected one of {names}"
        )
