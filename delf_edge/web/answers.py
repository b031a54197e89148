"""Answers and events as the JSON that the service sends."""

from __future__ import annotations

import dataclasses
from typing import Any

from delf_edge.camera.watcher import Event
from delf_edge.query.pipeline import Explanation


def answer_json(explanation: Explanation | None) -> dict[str, Any]:
    """An answer as JSON; with proof: points in pixels of the photo as sent (or decoded smaller), and of the stored."""
    if explanation is None:
        return {"landmark": None, "probability": 0.0, "n_inliers": 0, "reason": "", "matches": [], "proof": None}
    answer, stored = explanation.answer, explanation.stored
    proof = None
    if stored is not None and len(explanation.query_keypoints):
        proof = {
            "image_id": stored.image_id,
            "name": stored.name,
            "landmark": stored.landmark,
            "query_size": list(explanation.image.size),
            "stored_size": list(stored.size),
            "query_points": explanation.query_keypoints.round(1).tolist(),
            "stored_points": explanation.stored_keypoints.round(1).tolist(),
        }
    return {
        "landmark": answer.landmark,
        "probability": answer.probability,
        "n_inliers": answer.n_inliers,
        "reason": answer.reason,
        "matches": [dataclasses.asdict(match) for match in answer.results],
        "milliseconds": {stage: round(ms, 2) for stage, ms in answer.milliseconds.items()},
        "proof": proof,
        "info": None if answer.info is None else dataclasses.asdict(answer.info),
    }


def event_json(event: Event) -> dict[str, Any]:
    """An event as JSON, without its picture."""
    answer = event.proof.answer if event.proof is not None else None
    return {
        "kind": event.kind,
        "landmark": event.landmark,
        "previous": event.previous,
        "probability": None if answer is None else answer.probability,
        "image": None if answer is None else answer.image,
    }
