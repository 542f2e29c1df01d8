"""The infer job: a model and shards in, one table of redshift PDFs a shard out."""

from photoz.infer.job import infer_redshifts
from photoz.infer.settings import InferSettings

__all__ = ["InferSettings", "infer_redshifts"]
