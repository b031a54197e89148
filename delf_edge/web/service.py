"""What the routes share: the recogniser, the queue of work, the listeners, the cameras of browsers."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Collection
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request

from delf_edge.camera.watcher import CameraOptions
from delf_edge.images.limits import check_header
from delf_edge.recognizer import Recognizer
from delf_edge.storage.statistics import Statistics
from delf_edge.web.answers import event_json
from delf_edge.web.branding import Branding
from delf_edge.web.checks import Checks
from delf_edge.web.event_stream import Hub
from delf_edge.web.metrics import Metrics
from delf_edge.web.questions import Questions
from delf_edge.web.security import Policy
from delf_edge.web.sessions import Sessions
from delf_edge.web.uploads import Upload, read_upload
from delf_edge.web.visit import VisitPage
from delf_edge.web.work_queue import BusyError, Jobs


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the service works.

    Attributes:
        policy: who may do what.
        workers: photos worked on at the same time.
        queue: photos that may wait; the next one gets 503.
        uploads: bodies that may arrive at the same time, which bounds the memory they take; the next one gets 503.
        timeout: seconds that a photo waits for its turn, and again as many that the work on it may take; then 503.
        max_pixels: a photo with more gets 413; a JPEG that is read reduced may have four times as many. None: the
            limit of the recogniser.
        camera: how frames of a session are watched.
        visit: the page for visitors' phones; None: there is none. It stays the caller's to close.
        kiosk: the page hangs on a wall: it starts the camera by itself and goes back to its start.
        branding: title, logo, languages, colours, fonts, sizes of the pages.
        statistics: file of the counts; None keeps them in memory.
        questions: folder for pictures that visitors leave for staff; None keeps none.
    """

    policy: Policy
    workers: int = 1
    queue: int = 8
    uploads: int = 16
    timeout: float = 20.0
    max_pixels: int | None = None
    camera: CameraOptions = dataclasses.field(default_factory=CameraOptions)
    visit: VisitPage | None = None
    kiosk: bool = False
    branding: Branding = dataclasses.field(default_factory=Branding)
    statistics: Path | None = None
    questions: Path | None = None


class Service:
    """The state behind the routes; `create_app` makes one.

    Attributes:
        recognizer: the open database.
        options: see `ServiceOptions`.
        policy: who may do what.
        limits: how large a photo may be.
        jobs: the work of the recogniser.
        hub: events to whoever listens.
        metrics: what is counted.
        sessions: a watcher for each browser's camera.
        statistics: how often which place was found.
        questions: pictures that visitors have left; None where none are kept.
        checks: the quality of the stored photos.
        started, last_frame: seconds since 1970; `last_frame` of a browser's camera, 0 where there was none.
    """

    def __init__(self, recognizer: Recognizer, options: ServiceOptions) -> None:
        self.recognizer, self.options, self.policy = recognizer, options, options.policy
        most = options.max_pixels
        self.limits = recognizer.limits if most is None else dataclasses.replace(recognizer.limits, max_pixels=most)
        self.jobs = Jobs(options.workers, options.queue, options.timeout)
        self.hub = Hub(first=int(time.time()) << 12)  # numbers go on after a restart
        self.sessions = Sessions(recognizer, options.camera)
        self.metrics = Metrics()
        self.statistics = Statistics(options.statistics)
        self.questions = None if options.questions is None else Questions(options.questions)
        self.checks = Checks(recognizer, self.jobs)
        self.started, self.last_frame = time.time(), 0.0
        self._uploads = 0
        self._add_metrics()

    @property
    def healthy(self) -> bool:
        """Whether jobs come to an end: a job of three times the timeout is stuck."""
        return self.jobs.oldest < 3 * self.options.timeout

    async def read_photo(self, request: Request, known: Collection[str] = ()) -> Upload:
        """The photo of a request, if it can be one: what is too large is refused before anything waits for it.

        Args:
            request: its body is the photo, or a form with the photo and text fields in it.
            known: the names that a text field may have.
        """
        if self._uploads >= self.options.uploads:
            raise BusyError("too many uploads at once; try again in a moment")
        self._uploads += 1
        try:
            upload = await read_upload(request.headers, await self.policy.body(request))
        finally:
            self._uploads -= 1
        if unknown := sorted(set(upload.fields) - set(known)):
            raise HTTPException(400, f"the form has the field {unknown[0][:40]!r}; {_fields(known)}")
        if twice := sorted(set(upload.fields) & set(request.query_params)):
            raise HTTPException(400, f"{twice[0]} is in the address and in the form; once is enough")
        check_header(upload.data, "the photo", self.limits)
        return upload

    async def watch_idle(self) -> None:
        """What a browser's camera saw last leaves, although the browser is gone or its camera is unplugged."""
        while True:
            await asyncio.sleep(1.0)
            for session, event in self.sessions.idle(self.options.camera.signal):
                self.hub.publish(event.kind, {**event_json(event), "session": session})

    async def follow_packs(self) -> None:
        """Switched packs are taken up while nobody asks, too."""
        while True:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(self.recognizer.refresh_packs)

    def _add_metrics(self) -> None:
        recognizer, jobs, metrics = self.recognizer, self.jobs, self.metrics
        metrics.add_counts("delf_edge_events", "Published events by kind.", "kind", self.hub.sent)
        for name, text, value in (
            ("jobs", "Photos that are worked on or wait.", lambda: jobs.pending),
            ("jobs_refused", "Photos that were turned away since the start.", lambda: jobs.refused),
            ("listeners", "Open event streams.", lambda: len(self.hub)),
            ("sessions", "Browser cameras being watched.", lambda: len(self.sessions)),
            ("images", "Images in the database.", lambda: len(recognizer.store)),
            ("packs", "Packs that are searched.", lambda: len(recognizer.combined.packs)),
            ("pack_switches", "Times that packs were taken up since the start.", lambda: recognizer.pack_switches),
            ("pack_problems", "Packs whose version in use cannot be used.", lambda: len(recognizer.pack_problems)),
            ("damaged_rows", "Damaged rows met since the start.", lambda: len(recognizer.store.damaged)),
            ("found_today", "Places that visitors were shown today.", lambda: self.statistics.today()["found"]),
            ("unknown_today", "Views that were not recognised today.", lambda: self.statistics.today()["unknown"]),
            ("last_frame_time", "When a camera's frame came last, seconds since 1970.", lambda: self.last_frame),
        ):
            metrics.add_gauge(f"delf_edge_{name}", text, value)


def _fields(known: Collection[str]) -> str:
    return f"beside the photo it may have {', '.join(known)}" if known else "nothing goes here beside the photo"
