"""Are the browser's answers those of Python? Photos asked on both sides, and what they say side by side."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lab.browser import Browser
from delf_edge import IdentifyOptions, Recognizer
from delf_edge.index.search import SearchOptions

POINTS, PROBABILITY = 2, 0.02  # how far apart answers may be
# As the browser does it: every word is compared, and a photo is not turned.
LIKE_BROWSER = IdentifyOptions(turns=False, search=SearchOptions(exact_words=True))
OPEN = """async ([variant, more]) => {
    const {openInWorker} = await import('/sdk/client.js');
    window.places?.close();
    const options = {bundle: '/bundle/', database: '/pack/places.pack', variant, ...more};
    window.places = await openInWorker('/sdk/worker.js', options);
    return window.places.info;
}"""
ASK = """async url => {
    const {landmark, nInliers, probability, milliseconds} =
        await window.places.identify(await (await fetch(url)).blob(), {turns: false});
    return {landmark, nInliers, probability, milliseconds};
}"""


@dataclass(slots=True)
class Comparison:
    """Answers of both sides, photo by photo.

    Attributes:
        asked: photos.
        same_landmark: of them.
        close: of them, landmark, points and probability within the bounds.
        apart: the others: name, landmarks of browser and Python, distance in points and in probability.
        points: largest distance.
        probability: largest distance.
        processor: seconds that each side has computed, "browser" (all of the page's threads) and "python"; a busy
            machine changes these less than the milliseconds.
        milliseconds: "browser: stage" or "python: stage" -> one value a photo.
    """

    asked: int = 0
    same_landmark: int = 0
    close: int = 0
    apart: list[list[Any]] = field(default_factory=list)
    points: int = 0
    probability: float = 0.0
    processor: dict[str, float] = field(default_factory=lambda: {"browser": 0.0, "python": 0.0})
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, said: dict[str, Any], answer: Any) -> None:
        """One photo: what the browser said, and Python's answer."""
        points, distance = abs(said["nInliers"] - answer.n_inliers), abs(said["probability"] - answer.probability)
        same = said["landmark"] == answer.landmark
        self.asked += 1
        self.same_landmark += same
        self.points, self.probability = max(self.points, points), max(self.probability, distance)
        if same and points <= POINTS and distance <= PROBABILITY:
            self.close += 1
        else:
            self.apart.append([name, said["landmark"], answer.landmark, points, round(distance, 4)])
        for side, spent in (("browser", said["milliseconds"]), ("python", answer.milliseconds)):
            for stage, value in spent.items():
                self.milliseconds[f"{side}: {stage}"].append(value)

    def report(self) -> dict[str, Any]:
        """For a result's JSON."""
        times = {name: round(median(values), 1) for name, values in sorted(self.milliseconds.items())}
        return {
            "photos": self.asked,
            "same landmark": self.same_landmark,
            f"same landmark, within {POINTS} points and {PROBABILITY} of probability": self.close,
            "apart": self.apart,
            "largest distance": {"points": self.points, "probability": round(self.probability, 4)},
            "milliseconds, median": times,
            "processor's milliseconds a photo": {k: round(1000 * v / self.asked, 1) for k, v in self.processor.items()},
            "processor's time, browser / Python": round(self.processor["browser"] / self.processor["python"], 2),
            "photo to answer, browser / Python": round(times["browser: total"] / times["python: total"], 2),
        }


def compare(browser: Browser, page: Any, places: Recognizer, photos: Sequence[tuple[str, Path]]) -> Comparison:
    """Ask the photos, given as (URL, file), on both sides, one after the other.

    The first photo is asked once before: Python loads its index then.
    """
    found = Comparison()
    places.identify(photos[0][1], options=LIKE_BROWSER)
    for url, file in photos:
        began = browser.processor_time()
        said = page.evaluate(ASK, url)
        found.processor["browser"] += browser.processor_time() - began
        start = time.process_time()
        answer = places.identify(file, options=LIKE_BROWSER)
        found.processor["python"] += time.process_time() - start
        found.add(file.stem, said, answer)
    return found
