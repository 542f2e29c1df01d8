"""Backbones of torchvision with a PDF head. Only imported where torchvision is installed: it is an extra.

Legend: b image, c channel, h row, w column, f feature, m member, z redshift bin.
"""

import torch
import torchvision
from torch import nn

from photoz.errors import BadInput
from photoz.model.light import Light
from photoz.model.network import Batch, Network
from photoz.model.scaling import InputScaling

# Outputs beside the one that counts, with weights of their own.
_NO_EXTRAS = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class TorchvisionNetwork(Network):
    """Images (b, c, h, w) as stored -> logits (1, b, z), from an untrained torchvision classifier.

    Raises BadInput for a name that torchvision lacks, or whose first layer is no convolution; `prepare` does for images
    of a size that the network does not take.
    """

    def __init__(self, name: str, scaling: InputScaling, bins: int) -> None:
        super().__init__()
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise BadInput(f"model 'torchvision:{name}': torchvision has no such classifier; see its list of models")
        self.name = name
        self.light = Light(scaling)
        self.backbone = torchvision.models.get_model(name, weights=None, num_classes=bins, **_NO_EXTRAS.get(name, {}))
        _accept_channels(self.backbone, scaling.channels, name)

    def prepare(self, batch: Batch) -> None:
        """See whether it takes such images: some are made for one size, or for none as small as stamps."""
        self.eval()
        try:
            with torch.no_grad():
                self(*(values[:1] for values in batch))
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            size = "{}x{} px".format(*batch.images_bchw.shape[2:])
            raise BadInput(f"model 'torchvision:{self.name}': does not take images of {size}: {reason}") from None

    def features(self, batch: Batch) -> torch.Tensor:
        """The logits: the one output that all of torchvision's classifiers share, (b, f)."""
        logits_bz: torch.Tensor = self.backbone(self.light.stretched(batch.images_bchw))
        return logits_bz

    def answer(self, features_bf: torch.Tensor) -> torch.Tensor:
        """Logits (1, b, z) from features."""
        return features_bf[None]


def _accept_channels(backbone: nn.Module, channels: int, name: str) -> None:
    """Replace the first convolution by one that takes `channels` planes."""
    for path, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent = backbone.get_submodule(path.rpartition(".")[0])
            kernel, stride = layer.kernel_size[0], layer.stride[0]
            padding = 0 if isinstance(layer.padding, str) else layer.padding[0]
            replaced = nn.Conv2d(channels, layer.out_channels, kernel, stride, padding, bias=layer.bias is not None)
            setattr(parent, path.rpartition(".")[2], replaced)
            return
    raise BadInput(f"model 'torchvision:{name}': has no convolution to give {channels} channels; choose another")
