"""The train job: shards in, a model that predicts redshift PDFs out."""

from photoz.train.job import train_model
from photoz.train.settings import TrainSettings

__all__ = ["TrainSettings", "train_model"]
