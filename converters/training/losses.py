"""What the training makes small: classification of places, and InfoNCE between cells of two views.

* Classification (Noh et al., ICCV 2017, section 3): y = W sum_n a(f_n) f_n, softmax cross-entropy. f is L2-normalised,
  the sum too, and y is a cosine times `logit_scale`. The same for the global descriptor, with an angular margin.
* InfoNCE: a cell of the first view has to find its own surface among the cells of the second views. Where a surface
  cannot be found again, attention learns to be low.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from delf_edge.converters.networks.delf import STRIDE
from delf_edge.converters.training.batches import OUTSIDE
from delf_edge.converters.training.options import TrainOptions


class Heads(nn.Module):
    """Classifiers that exist only while training."""

    def __init__(self, channels: int, global_channels: int, places: int, centres: int = 1) -> None:
        super().__init__()
        self.local = nn.Linear(channels, places, bias=False)
        self.glob = nn.Linear(global_channels, places * centres, bias=False)


def cosine_logits(x: Tensor, head: nn.Linear, scale: float) -> Tensor:
    """scale * cos(x, w_k): (B, C) to (B, places)."""
    return scale * F.linear(F.normalize(x, dim=1), F.normalize(head.weight, dim=1))


def angular_logits(x: Tensor, head: nn.Linear, places: Tensor, options: TrainOptions) -> tuple[Tensor, Tensor]:
    """Logits for training with an angular margin on the right place, and without it: (B, places) each.

    Deng et al., CVPR 2019 (ArcFace) and ECCV 2020 (sub-centres). `margin` 0 and one centre are `cosine_logits`.
    """
    cosines = cosine_logits(x, head, 1.0)
    cosines = cosines.reshape(len(x), -1, options.centres).amax(dim=2)
    plain = options.logit_scale * cosines
    if not options.margin:
        return plain, plain
    right = cosines.gather(1, places[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    turned = torch.cos((torch.acos(right) + options.margin).clamp(max=float(np.pi)))
    return options.logit_scale * cosines.scatter(1, places[:, None], turned.to(cosines.dtype)), plain


def attention_pool(features: Tensor, score: Tensor) -> Tensor:
    """sum_n a(f_n) f_n over L2-normalised f: (B, C, h, w), (B, 1, h, w) to (B, C)."""
    return (F.normalize(features, dim=1) * score).sum(dim=(2, 3))


def correspondence_loss(
    features: Tensor, score: Tensor, target: Tensor, size: int, places: Tensor, options: TrainOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """InfoNCE from cells of the first views to where they lie in the second views.

    Args:
        features: (2 B, C, h, w) maps, first views then second views.
        score: (2 B, 1, h, w), softplus attention.
        target: (B, h w, 2), where the cells of the first views lie in the second, pixels (`cell_targets`).
        size: side of a view in pixels.
        places: (B,), place of each photo; cells of other photos of the same place are no negatives.
        options: temperature, anchors, w_repeat.
        seed: of the choice of anchors.

    Returns:
        The loss, and the share of anchors whose nearest cell is the right one (detached).
    """
    n, c, h, w = features.shape
    b = n // 2
    unit = F.normalize(features, dim=1)
    device = features.device
    ys, xs = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    cells = torch.stack([xs, ys], dim=-1).reshape(-1, 2).to(features.dtype) * STRIDE  # (h w, 2), (x, y)
    edge = size - 1.0
    valid = ((target >= 0) & (target <= edge)).all(dim=-1)  # (B, h w)

    # Gumbel top-k: anchors drawn without replacement, attended cells more often.
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same anchors on every device
    flat_score = score[:b].reshape(b, h * w)
    with torch.no_grad():
        share = flat_score / flat_score.mean(dim=1, keepdim=True).clamp(min=1e-6)
        gumbel = -torch.log(-torch.log(torch.rand(b, h * w, generator=generator).clamp(1e-6, 1 - 1e-6)))
        priority = (torch.log(share + 0.2) + gumbel.to(device)).masked_fill(~valid, -1e9)
        k = min(options.anchors, h * w)
        picked = priority.topk(k, dim=1).indices  # (B, k)
        ok = valid.gather(1, picked)
    anchor = unit[:b].flatten(2).transpose(1, 2).gather(1, picked[..., None].expand(-1, -1, c))  # (B, k, C)
    goal = target.gather(1, picked[..., None].expand(-1, -1, 2))  # (B, k, 2) pixels
    grid = goal / STRIDE / torch.tensor([max(w - 1, 1), max(h - 1, 1)], device=device) * 2 - 1
    positive = F.grid_sample(unit[b:], grid[:, :, None], align_corners=True, padding_mode="border")[..., 0]
    positive = F.normalize(positive, dim=1).transpose(1, 2)  # (B, k, C)

    keys = unit[b:].flatten(2).transpose(1, 2).reshape(-1, c)  # (B h w, C)
    similar = anchor.reshape(-1, c) @ keys.T / options.temperature  # (B k, B h w)
    owner = torch.arange(b, device=device).repeat_interleave(h * w)
    row = torch.arange(b, device=device).repeat_interleave(k)
    same_place = places[row][:, None] == places[owner][None, :]
    same_photo = row[:, None] == owner[None, :]
    far = ((cells[None, :, :] - goal.reshape(-1, 1, 2)).abs().amax(dim=-1) > 1.5 * STRIDE).repeat(1, b)
    negative = (~same_place) | (same_photo & far)
    similar = similar.masked_fill(~negative, -1e4)
    hit = (anchor * positive).sum(dim=-1).reshape(-1, 1) / options.temperature
    each = F.cross_entropy(
        torch.cat([hit, similar], dim=1), torch.zeros(len(similar), dtype=torch.long, device=device), reduction="none"
    )
    good = ok.reshape(-1).to(each.dtype)
    total = good.sum().clamp(min=1)
    weight = flat_score.gather(1, picked).reshape(-1)
    weight = weight / ((weight * good).sum() / total).clamp(min=1e-6)
    loss = (each * weight.detach() * good).sum() / total
    repeat = (each.detach() * weight * good).sum() / total
    won = (hit[:, 0] > similar.amax(dim=1)).to(each.dtype).detach()
    if options.w_match:
        loss = loss + options.w_match * _matchability(flat_score, picked, won.reshape(b, k), ok, target)
    return loss + options.w_repeat * repeat, (won * good).sum() / total


def _matchability(score: Tensor, picked: Tensor, won: Tensor, ok: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of attention as a prediction of what can be found again.

    Args:
        score: (B, h w), softplus attention; 1 - exp(-softplus(z)) is the sigmoid of z.
        picked: (B, k), anchor cells; ok: (B, k), whether they have a partner; won: (B, k), whether it was nearest.
        target: (B, h w, 2); cells at `OUTSIDE` show nothing that the other photo has by the teacher's word, which
            is sparse: they count a fifth.
    """
    found = (-torch.expm1(-score)).clamp(1e-6, 1 - 1e-6)
    anchors = found.gather(1, picked)
    asked = ok.to(score.dtype)
    each = F.binary_cross_entropy(anchors, won, reduction="none") * asked
    lost = (target <= OUTSIDE).all(dim=-1).to(score.dtype)
    share = lost.mean(dim=1, keepdim=True) / lost.sum(dim=1, keepdim=True).clamp(min=1)  # a photo counts once
    nothing = (-torch.log1p(-found) * lost * share).sum() / (lost.amax(dim=1)).sum().clamp(min=1)
    return each.sum() / asked.sum().clamp(min=1) + 0.2 * nothing
