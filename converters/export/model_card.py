"""MODEL_CARD.md of a converted bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from delf_edge.converters.export.recipes import Recipe


def model_card(recipe: Recipe, figures: Mapping[str, Any], command: str) -> str:
    """MODEL_CARD.md: what the model is, what it saw, what it costs, where it ends.

    Args:
        recipe: the bundle's own words.
        figures: "parity" (list of dicts), "tail_parity" (the same), "codebook" (dict), "photos", "places".
        command: the command that made all of it.

    Times are left out: the same input gives the same bundle, on a busy machine too.
    """
    lines = [f"# {recipe.name} {recipe.version}", "", f"Licence of the weights: {recipe.licence}.", "", "## Data", ""]
    lines += [f"* {line}" for line in recipe.training_data]
    lines += [
        f"* Codebooks and quantisation: {figures['photos']} photos of {figures['places']} places.",
        "",
        "## Recipe",
        "",
        "Made by",
        "",
        "    " + command,
        "",
        f"Selection: {recipe.selection}. Global: GeM (p = {recipe.gem_p:g}) of level {recipe.level_scale:g}.",
        f"One cell sees {recipe.receptive_field} px. Presets: `{json.dumps(dict(recipe.presets), default=list)}`.",
        "",
        "## Figures",
        "",
        "The same command prints them. Parity compares each TFLite network with PyTorch on photos of the fitting data",
        "that int8 was not calibrated on.",
        "",
        *_table("Local network", figures["parity"]),
        *_table("Tail", figures["tail_parity"]),
        "Codebook:",
        "",
        *[f"* {name.replace('_', ' ')}: {value:.6g}" for name, value in figures["codebook"].items()],
        "",
        "## Limits",
        "",
        "* Rigid scenes seen again: buildings, statues, rock. Not people, not animals, not plain walls.",
        "* Day and night, and very different sides of one building, are different places to it.",
        "* The probability is calibrated on the data named above and holds for photos like those.",
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    head = f"| {title} | bytes | cosine, mean | cosine, 5th percentile | same keypoints |"
    body = [
        f"| {r['variant']} | {r['bytes']} | {r['cosine_mean']:.4f} | {r['cosine_worst5']:.4f} "
        f"| {r['keypoint_agreement']:.3f} |"
        for r in rows
    ]
    return [head, "|---|---|---|---|---|", *body, ""]
