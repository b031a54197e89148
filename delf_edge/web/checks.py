"""`lint` of a whole database in the background: one photo at a time, and only while no visitor asks."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import Any

from delf_edge.diagnostics.reference_quality import assess_stored
from delf_edge.errors import DelfEdgeError
from delf_edge.recognizer import Recognizer
from delf_edge.web.work_queue import BusyError, Jobs

_PAUSE = 0.05  # seconds; a visitor's photo gets its turn


class Checks:
    """What is known of the quality of stored photos; a run may be started, looked at and stopped.

    Attributes:
        findings: image id -> what `lint` says; kept until the photo is gone.
        total: photos of the run.
        done: those of them that were looked at.
    """

    def __init__(self, recognizer: Recognizer, jobs: Jobs) -> None:
        self._recognizer, self._jobs = recognizer, jobs
        self._task: asyncio.Task[None] | None = None
        self.findings: dict[int, dict[str, Any]] = {}
        self.total = self.done = 0

    @property
    def running(self) -> bool:
        """Whether a run goes on."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin a run over all photos, unless one goes on."""
        if not self.running:
            self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """End the run; what was found stays."""
        if self._task is not None:
            self._task.cancel()

    def as_json(self) -> dict[str, Any]:
        """How far it is, and what it found; the worst photos first."""
        findings = sorted(self.findings.values(), key=lambda finding: (finding["score"], finding["name"]))
        return {"running": self.running, "done": self.done, "total": self.total, "findings": findings}

    async def _run(self) -> None:
        images = await asyncio.to_thread(lambda: list(self._recognizer.store.images()))
        self.total, self.done = len(images), 0
        known = {image.image_id for image in images}
        self.findings = {key: value for key, value in self.findings.items() if key in known}
        for image in images:
            while True:
                while self._jobs.pending:
                    await asyncio.sleep(_PAUSE)
                try:
                    found = await self._jobs.run(partial(assess_stored, self._recognizer, image))
                except BusyError:
                    await asyncio.sleep(1.0)
                    continue
                except DelfEdgeError:
                    self.findings.pop(image.image_id, None)  # damaged or gone meanwhile
                else:
                    facts = {"image_id": image.image_id, "name": found.name, "landmark": found.landmark}
                    quality = dataclasses.asdict(found.quality)
                    self.findings[image.image_id] = facts | {"photo": found.photo, **quality}
                break
            self.done += 1
            await asyncio.sleep(_PAUSE)
