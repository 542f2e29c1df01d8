"""What predictions were made from: model, shards and catalogues."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from photoz.artifacts import Artifact
from photoz.errors import MissingArtifact

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Chain:
    """Everything the predictions were made from. `training` is None where its artifacts are no longer stored."""

    predictions: Artifact
    model: Artifact
    shards: Artifact
    catalog: Artifact
    training_shards: Artifact | None
    training: Artifact | None

    @classmethod
    def of(cls, predictions: Artifact) -> Chain:
        """Follow the inputs. Raises MissingArtifact if the model, the shards or their catalogue is gone."""
        model, shards = predictions.input("model"), predictions.input("shards")
        catalog = shards.input("catalog")
        try:
            training_shards = model.input("shards")
            return cls(predictions, model, shards, catalog, training_shards, training_shards.input("catalog"))
        except MissingArtifact:
            return cls(predictions, model, shards, catalog, None, None)

    @cached_property
    def catalog_rows(self) -> pd.DataFrame:
        """The catalogue of the tested galaxies."""
        from photoz.evaluate.sample import read_catalog  # with pandas

        return read_catalog(self.catalog)

    def artifacts(self) -> list[Artifact]:
        """Each artifact once, from the predictions back to the catalogues."""
        every = (self.predictions, self.model, self.shards, self.catalog, self.training_shards, self.training)
        return list({str(artifact.ref): artifact for artifact in every if artifact is not None}.values())
