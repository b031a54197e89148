"""A quick measure of a network before it becomes a bundle.

    python -m delf_edge.converters.training.probe DATA NETWORK.pt --out DIR

Two sets of questions are asked, both of places that were never trained on: VAL (`val.json`), and the photos of
`default_recipe.HELD_OUT` in turn against each other and VAL's distractors. Descriptors are not compressed, so that a
run is judged by its network and not by a codebook; the figures are no substitute for those of `benchmarks`.
Every row is mean average precision with a 90 % interval over the queries (bootstrap), top-1, and the share of queries
whose first photo is right and scores higher than the best wrong photo of 99 % of the queries ("named").
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from delf_edge.converters.networks.delf import STRIDE, DelfNetwork, load_checkpoint, load_imagenet, to_input
from delf_edge.converters.training.batches import load_photo
from delf_edge.converters.training.default_recipe import HELD_OUT
from delf_edge.converters.training.more_places_recipe import write_codebook_list
from delf_edge.converters.training.photos import balanced, from_csv

Float32Array = NDArray[np.float32]
SCALES = (0.354, 0.5, 0.707)  # those of preset balanced
GLOBAL_SCALES = (0.354, 0.5, 0.707)
FIT_SCALE = 0.5
CELLS = 200
DIM = 64
GLOBAL_DIM = 128  # 384 need more fitting photos than a quick measure has
NEIGHBOURS = 20
FIT_PHOTOS = 250


@dataclass(frozen=True, slots=True)
class Looked:
    """What the network sees in one photo: the strongest cells and the pooled tail of every level."""

    keypoints: Float32Array  # (N, 2), (x, y) in photo pixels
    descriptors: Float32Array  # (N, C), unit
    pooled: Float32Array  # (levels, G), GeM, not normalised


@torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]
def look(network: DelfNetwork, photo: NDArray[np.uint8], cells: int = CELLS) -> Looked:
    """Extract at `SCALES`, cells chosen by attention."""
    h, w = photo.shape[:2]
    points, descriptors, scores, pooled = [], [], [], []
    for scale in SCALES:
        size = (max(32, round(w * scale)), max(32, round(h * scale)))
        level = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        features, logit = network(to_input(np.asarray(level, np.uint8)[None]))
        pooled.append(network.tail(features).clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)[0].numpy())
        ys, xs = np.mgrid[: features.shape[2], : features.shape[3]]
        points.append((np.stack([xs, ys], -1).reshape(-1, 2) * STRIDE + 0.5) * [w / size[0], h / size[1]] - 0.5)
        descriptors.append(features[0].flatten(1).T.numpy())
        scores.append(logit[0].flatten().numpy())
    best = np.argsort(-np.concatenate(scores), kind="stable")[:cells]
    unit = np.concatenate(descriptors)[best]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return Looked(np.concatenate(points)[best].astype(np.float32), unit, np.stack(pooled))


def fused(network: DelfNetwork) -> DelfNetwork:
    """The same function with each batch norm folded into the convolution before it: a quarter faster."""
    network = copy.deepcopy(network)
    parts: list[tuple[Any, str, str]] = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        parts += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        parts += [(block, "_expand_conv", "_bn0")] if block.has_expand else []
    for owner, conv, norm in parts:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def looked_at(
    network: DelfNetwork, data: Path, fit: list[Path], sets: list[Questions], keep: Path
) -> tuple[dict[str, Looked], list[Looked]]:
    """What the network sees in all photos of the questions and in the fitting photos, kept in a file."""
    paths = sorted({p for s in sets for p in (*s.queries, *s.database)})
    names = [*paths, *map(str, fit)]
    if not keep.exists():
        ready = fused(network)
        seen = [look(ready, load_photo(data / p, 640)) for p in names]  # an absolute path stays as it is
        with keep.with_suffix(".part").open("wb") as f:
            np.savez(
                f,
                names=np.array(names),
                count=np.array([len(s.keypoints) for s in seen]),
                keypoints=np.concatenate([s.keypoints for s in seen]),
                descriptors=np.concatenate([s.descriptors for s in seen]).astype(np.float16),
                pooled=np.stack([s.pooled for s in seen]),
            )
        keep.with_suffix(".part").replace(keep)
    with np.load(keep, allow_pickle=False) as z:
        number = {name: i for i, name in enumerate(z["names"].tolist())}
        if missing := [name for name in names if name not in number]:
            raise ValueError(f"{keep} lacks {len(missing)} photos, {missing[0]} first; remove it")
        starts = np.concatenate([[0], np.cumsum(z["count"])])
        keypoints, descriptors, pooled = z["keypoints"], z["descriptors"].astype(np.float32), z["pooled"]
    rows = [(number[name], slice(starts[number[name]], starts[number[name] + 1])) for name in names]
    seen = [Looked(keypoints[span], descriptors[span], pooled[i]) for i, span in rows]
    return dict(zip(paths, seen, strict=False)), seen[len(paths) :]


def _unit(x: NDArray[np.floating]) -> Float32Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9), np.float32)


def _whitening(x: Float32Array, dim: int, power: float) -> tuple[Float32Array, Float32Array]:
    """Mean and projection (C, dim); directions are divided by their deviation ** `power`."""
    mean = x.mean(0)
    values, vectors = np.linalg.eigh(np.cov((x - mean).T.astype(np.float64)))
    order = np.argsort(-values)[:dim]
    scale = np.maximum(values[order], 1e-3 * values[order][0]) ** (-power / 2)
    return mean, np.asarray(vectors[:, order] * scale, np.float32)


@dataclass(frozen=True, slots=True)
class Questions:
    """Queries against a database; `positives[q]` are indices into the database, of the place of query q."""

    name: str
    queries: list[str]
    database: list[str]
    positives: list[list[int]]


def questions(data: Path, every: int, held: bool = True) -> list[Questions]:
    """VAL, and (`held`) the places left out of training; of VAL's distractors every `every`-th."""
    with (data / "val.json").open(encoding="utf-8") as f:
        val = json.load(f)
    others = sorted(p for p in val["database"] if p.startswith("dev_distractors/"))
    left_out = set(others) - set(others[::every])
    val["database"] = [p for p in val["database"] if p not in left_out]
    number = {path: i for i, path in enumerate(val["database"])}
    asked = [[number[p] for p in q["positives"]] for q in val["queries"]]
    found = [Questions("val", [q["query"] for q in val["queries"]], val["database"], asked)]
    if not held:
        return found
    photos = [p for p in from_csv(data / "train.csv") if p.place in HELD_OUT]
    queries: list[str] = []
    database: list[str] = []
    truth: list[list[int]] = []
    for place in HELD_OUT:
        paths = sorted(p.path.relative_to(data).as_posix() for p in photos if p.place == place)
        n = min(6, len(paths) // 2)
        picked = set(paths[:: max(1, len(paths) // n)][:n])
        rest = [p for p in paths if p not in picked]
        rest = rest[:: -(-len(rest) // 16)]
        queries += sorted(picked)
        truth += [list(range(len(database), len(database) + len(rest)))] * len(picked)
        database += rest
    database += [p for p in val["database"] if p.startswith("dev_distractors/")]
    found.append(Questions("held", queries, database, truth))
    return found


def average_precision(order: NDArray[np.int64], positives: set[int]) -> float:
    """Trapezoid, as in the Oxford protocol."""
    hits, area, before = 0, 0.0, 1.0
    for rank, i in enumerate(order.tolist()):
        if i in positives:
            hits += 1
            now = hits / (rank + 1)
            area += (before + now) / 2 / len(positives)
            before = now
        else:
            before = hits / (rank + 1)
    return area


def figures(scores: Float32Array, asked: Questions) -> dict[str, Any]:
    """mAP with its interval, top-1 and named, of scores (queries, database)."""
    each, top, right, wrong = [], [], [], []
    for row, positives in zip(scores, asked.positives, strict=True):
        order = np.argsort(-row, kind="stable")
        each.append(average_precision(order, set(positives)))
        top.append(int(order[0]) in set(positives))
        others = np.delete(row, positives)
        right.append(row[positives].max() if top[-1] else -np.inf)
        wrong.append(others.max())
    n = len(each)
    threshold = np.sort(wrong)[-1 - n // 100]  # one query in a hundred may have a wrong photo above it
    draws = np.random.default_rng(0).integers(n, size=(2000, n))
    means = np.array(each)[draws].mean(1)
    return {
        "map": round(float(np.mean(each)), 4),
        "interval": [round(float(v), 3) for v in np.quantile(means, (0.05, 0.95))],
        "top1": round(float(np.mean(top)), 3),
        "named": round(float(np.mean(np.array(right) > threshold)), 3),
    }


def expand(query: Float32Array, database: Float32Array, k: int = 4, alpha: float = 3.0) -> Float32Array:
    """Descriptors drawn to their neighbours in the database (alpha query expansion; DBA where both are one)."""
    similar = query @ database.T
    near = np.argpartition(-similar, k, axis=1)[:, :k]
    weight = np.take_along_axis(similar, near, 1).clip(0) ** alpha
    return _unit(query + (weight[..., None] * database[near]).sum(1))


def votes(query: list[Float32Array], database: list[Float32Array], k: int = NEIGHBOURS) -> Float32Array:
    """Each cell votes for the k photos with the nearest cells by how much nearer they are than the next photo's."""
    n, dim = max(map(len, database)), database[0].shape[1]
    cells = np.zeros((len(database), n, dim), np.float32)  # photos with fewer cells get zeros, which are near nothing
    for i, d in enumerate(database):
        cells[i, : len(d)] = d
    table = torch.from_numpy(cells.reshape(-1, dim)).T
    k = min(k, len(database) - 1)
    out = np.zeros((len(query), len(database)), np.float32)
    for q, descriptors in enumerate(query):
        best = (torch.from_numpy(descriptors) @ table).reshape(len(descriptors), len(database), n).amax(2)
        out[q] = (best - best.topk(k + 1, dim=1).values[:, -1:]).clamp(min=0).sum(0).numpy()
    return out


def inliers(query: Looked, other: Looked, a: Float32Array, b: Float32Array) -> int:
    """Mutual nearest neighbours that one affine map explains."""
    similar = a @ b.T
    forth, back = similar.argmax(1), similar.argmax(0)
    mutual = np.flatnonzero(back[forth] == np.arange(len(forth)))
    if len(mutual) < 5:
        return 0
    extent = float(other.keypoints.max())
    cv2.setRNGSeed(0)
    _, mask = cv2.estimateAffine2D(
        query.keypoints[mutual].copy(),
        other.keypoints[forth[mutual]].copy(),
        method=cv2.RANSAC,
        ransacReprojThreshold=0.025 * extent,
        maxIters=500,
    )
    return 0 if mask is None else int(mask.sum())


def probe(
    network: DelfNetwork, data: Path, fit: list[Path], keep: Path, every: int = 8, held: bool = True
) -> dict[str, Any]:
    """All figures of a network."""
    began = time.perf_counter()
    sets = questions(data, every, held)
    seen, sample = looked_at(network, data, fit, sets, keep)
    mean, basis = _whitening(np.concatenate([s.descriptors for s in sample]), DIM, 0.0)
    local = {p: _unit((s.descriptors - mean) @ basis) for p, s in seen.items()}
    result: dict[str, Any] = {}
    level = SCALES.index(FIT_SCALE)

    def pool(s: Looked, scales: list[int]) -> Float32Array:
        return _unit(_unit(s.pooled[scales]).sum(0))

    both = [SCALES.index(s) for s in GLOBAL_SCALES]
    for asked in sets:
        rows: dict[str, Any] = {}
        scores: dict[str, Float32Array] = {}
        for name, scales in (("gem", [level]), ("gem3", both)):
            m, b = _whitening(np.stack([pool(s, scales) for s in sample]), GLOBAL_DIM, 1.0)
            q = _unit((np.stack([pool(seen[p], scales) for p in asked.queries]) - m) @ b)
            d = _unit((np.stack([pool(seen[p], scales) for p in asked.database]) - m) @ b)
            scores[name] = q @ d.T
            wide = expand(d, d)
            scores[name + "_dba_qe"] = expand(_unit(q), wide) @ wide.T
        v = votes([local[p] for p in asked.queries], [local[p] for p in asked.database])
        own = np.maximum(np.sort(v, axis=1)[:, -5:].mean(1, keepdims=True), 1e-6)
        scores["votes"] = v
        scores["votes+gem3"] = v / np.quantile(own, 0.8) + scores["gem3"]
        checked = np.array(scores["votes+gem3"])
        alone = np.zeros_like(checked)
        for asking, row in enumerate(scores["votes+gem3"]):
            for i in np.argsort(-row, kind="stable")[:20].tolist():
                a, b_ = asked.queries[asking], asked.database[i]
                alone[asking, i] = inliers(seen[a], seen[b_], local[a], local[b_])
        scores["inliers"] = alone + 1e-3 * checked
        scores["all"] = checked + 0.02 * alone
        for name, value in scores.items():
            rows[name] = figures(value, asked)
        result[asked.name] = rows
    result["seconds"] = round(time.perf_counter() - began)
    return result


def main() -> None:
    """Print the figures and add them to a JSON-lines file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("network", type=Path, help="network.pt, or 'imagenet'")
    parser.add_argument("--out", type=Path, required=True, help="folder; figures are appended to probes.jsonl")
    parser.add_argument("--name", required=True)
    parser.add_argument("--every", type=int, default=8, help="of VAL's 800 distractors only every n-th; 1: all")
    parser.add_argument("--val-only", action="store_true", help="leave the held-out training places out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = load_imagenet() if str(args.network) == "imagenet" else load_checkpoint(args.network)
    fit = [p.path for p in balanced(from_csv(write_codebook_list(args.data, args.out)), 8)]
    fit = [p for p in fit if "train_extra" not in p.parts]
    step = max(1, len(fit) // FIT_PHOTOS)
    keep = args.out / f"{args.name}.npz"
    found = probe(network, args.data, fit[::step], keep, args.every, not args.val_only)
    result = {"name": args.name, "every": args.every, **found}
    with (args.out / "probes.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps(result) + "\n")
    for key in ("val", "held"):
        for name, row in result.get(key, {}).items():
            print(f"{args.name:20s} {key:5s} {name:12s} {row}")


if __name__ == "__main__":
    main()
