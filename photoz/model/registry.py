"""Networks by name, and the recipe that each is trained with unless the user says otherwise."""

from dataclasses import asdict, dataclass
from typing import Any

from photoz.errors import BadInput
from photoz.model.aperture_cnn import ApertureCNN, ApertureShape, aperture_radii, stem_stride
from photoz.model.bins import RedshiftBins
from photoz.model.menko2024 import Menko2024
from photoz.model.names import APERTURE_CNN, MENKO2024, TORCHVISION, Recipe, check_model_name
from photoz.model.network import Network
from photoz.model.scaling import InputScaling

SMALLEST_PX = 16


@dataclass(frozen=True)
class ImageShape:
    """Channels and size of the images that a network is built for."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.channels} channels of {self.height}x{self.width} px"


def design(name: str, image: ImageShape, bins: RedshiftBins, recipe: Recipe) -> dict[str, Any]:
    """Sizes of a new network, as model.json keeps them. Raises BadInput for an unknown name or images too small."""
    check_model_name(name)
    if min(image.height, image.width) < SMALLEST_PX:
        expected = f"expected at least {SMALLEST_PX}x{SMALLEST_PX}; cut larger stamps"
        raise BadInput(f"images of {image.height}x{image.width} px: {expected}")
    if name == APERTURE_CNN:
        height, width = image.height, image.width
        shape = ApertureShape(
            height=height,
            width=width,
            bins=bins.count,
            members=recipe.members,
            dropout=recipe.dropout,
            radii_px=aperture_radii(height, width),
            stride=stem_stride(height, width),
        )
        return asdict(shape)
    return {} if name == MENKO2024 else {"bins": bins.count}


def build_network(name: str, sizes: dict[str, Any], scaling: InputScaling) -> Network:
    """A network with fresh weights, of the sizes that `design` gave. Raises BadInput for an unknown name."""
    check_model_name(name)
    if name == APERTURE_CNN:
        return ApertureCNN(scaling, ApertureShape.from_json(sizes))
    if name == MENKO2024:
        return Menko2024(scaling)
    from photoz.model.torchvision_network import TorchvisionNetwork  # torchvision is an extra

    return TorchvisionNetwork(name.removeprefix(TORCHVISION), scaling, int(sizes["bins"]))
