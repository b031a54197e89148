"""A user's program, for type checkers."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from delf_edge import (
    AddError,
    AddItem,
    Answer,
    CameraOptions,
    IdentifyOptions,
    ImageLimits,
    NameTakenError,
    Near,
    Recognizer,
    VideoSource,
    watch,
)


def ask(recognizer: Recognizer, path: Path) -> str | None:
    frame = cv2.imread(str(path))
    answers: list[Answer] = [
        recognizer.identify(path),
        recognizer.identify(str(path)),
        recognizer.identify(path.read_bytes()),
        recognizer.identify(frame, channel_order="BGR"),
        recognizer.identify(np.zeros((4, 4, 3), np.uint8), channel_order="RGB", top=3),
        recognizer.identify(PillowImage.open(path)),
        recognizer.identify(io.BytesIO(path.read_bytes())),
        recognizer.identify(path, options=IdentifyOptions(near=Near(1.0, 2.0, 30.0), turns=False)),
    ]
    with path.open("rb") as file:
        answers.append(recognizer.identify(file))
    grey: NDArray[np.uint8] = cv2.cvtColor(np.zeros((4, 4, 3), np.uint8), cv2.COLOR_BGR2GRAY).astype(np.uint8)
    answers.append(recognizer.identify(grey))
    for answer in answers:
        for result in answer.results:
            print(result.landmark, result.probability + 1.0, result.name.upper())
        print(answer.milliseconds.get("total", 0.0), answer.reason)
    return answers[0].landmark


def main() -> None:
    with Recognizer.open("p.db", limits=ImageLimits(max_pixels=10_000_000)) as recognizer:
        try:
            added = recognizer.add("a.jpg", landmark="x", replace=True)
            print(added.image_id + 1, added.status)
        except NameTakenError as e:
            print(e)
        items = [AddItem(path, landmark="x") for path in Path(".").glob("*.jpg")]
        for result in recognizer.add_many(items, on_error="collect"):
            print(result.error if isinstance(result, AddError) else result.n_features)
        with VideoSource("film.mp4") as source:
            for event in watch(recognizer, source, options=CameraOptions(turn=90)):
                print(event.kind, event.landmark)


if __name__ == "__main__":
    main()
