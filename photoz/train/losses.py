"""What training makes small. Legend: b image, m member, z redshift bin, e bin edge."""

from collections.abc import Callable

import torch

from photoz.model.bins import RedshiftBins

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

CRPS_WEIGHT = 10.0  # makes its gradients as large as the cross-entropy's


class BinnedLoss:
    """Cross-entropy with labels smoothed over neighbouring bins, and the CRPS in log(1 + z) over the bins' range.

    `smoothing` is the labels' standard deviation as a share of that range. Cross-entropy alone takes all wrong bins
    for equally wrong; the CRPS knows which are near. A redshift outside of the range counts as the nearest inside.
    """

    def __init__(self, bins: RedshiftBins, smoothing: float, device: torch.device) -> None:
        self.edges_e = torch.from_numpy(bins.log_edges).float().to(device)
        self.width = bins.log_width
        self.sigma = smoothing * bins.count * bins.log_width

    def __call__(self, logits_mbz: torch.Tensor, z_spec_b: torch.Tensor) -> torch.Tensor:
        log_pdf_mbz = logits_mbz.float().log_softmax(-1)
        log_z_b1 = torch.log1p(z_spec_b)[:, None].clamp(self.edges_e[0], self.edges_e[-1])
        entropy = -(self.smoothed(log_z_b1) * log_pdf_mbz).sum(-1).mean()
        step_bz = ((self.edges_e[1:] - log_z_b1) / self.width).clamp(0.0, 1.0)
        crps = (log_pdf_mbz.exp().cumsum(-1) - step_bz).square().mean()
        loss: torch.Tensor = entropy + CRPS_WEIGHT * crps
        return loss

    def smoothed(self, log_z_b1: torch.Tensor) -> torch.Tensor:
        """A normal distribution around each label, as mass in each bin, (b, z)."""
        cdf_be = torch.special.ndtr((self.edges_e - log_z_b1) / self.sigma)
        mass_bz = cdf_be.diff(dim=1)
        return torch.div(mass_bz, mass_bz.sum(1, keepdim=True))


def squared_error(redshift_b: torch.Tensor, z_spec_b: torch.Tensor) -> torch.Tensor:
    """Mean squared error in redshift, the reference network's loss."""
    return (redshift_b.float() - z_spec_b).square().mean()
