"""The public names of delf-edge, for type checkers and for `__init__.py`, which reads this file."""

from .bundle.bundle import Bundle as Bundle
from .bundle.bundle import default_bundle_path as default_bundle_path
from .camera.frame_gate import GateOptions as GateOptions
from .camera.frames import Frame as Frame
from .camera.frames import FrameSource as FrameSource
from .camera.sources import VideoSource as VideoSource
from .camera.sources import open_source as open_source
from .camera.temporal_voting import VoteOptions as VoteOptions
from .camera.watcher import (
    CameraOptions as CameraOptions,
)
from .camera.watcher import Event as Event
from .camera.watcher import (
    watch as watch,
)
from .catalogue.catalogue import Catalogue as Catalogue
from .catalogue.reader import MediaBytes as MediaBytes
from .catalogue.records import ImportReport as ImportReport
from .catalogue.records import LandmarkRecord as LandmarkRecord
from .catalogue.records import LandmarkText as LandmarkText
from .catalogue.records import MediaItem as MediaItem
from .errors import (
    BuildError as BuildError,
)
from .errors import (
    BundleError as BundleError,
)
from .errors import (
    BundleIntegrityError as BundleIntegrityError,
)
from .errors import (
    BundleMismatchError as BundleMismatchError,
)
from .errors import (
    BundleVersionError as BundleVersionError,
)
from .errors import (
    CameraError as CameraError,
)
from .errors import (
    CorruptRowError as CorruptRowError,
)
from .errors import (
    DelfEdgeError as DelfEdgeError,
)
from .errors import (
    EngineError as EngineError,
)
from .errors import (
    ImageDecodeError as ImageDecodeError,
)
from .errors import (
    ImageError as ImageError,
)
from .errors import (
    ImageTooLargeError as ImageTooLargeError,
)
from .errors import (
    NameTakenError as NameTakenError,
)
from .errors import (
    NotADatabaseError as NotADatabaseError,
)
from .errors import (
    NotFoundError as NotFoundError,
)
from .errors import (
    OptionError as OptionError,
)
from .errors import (
    PackError as PackError,
)
from .errors import (
    PackIntegrityError as PackIntegrityError,
)
from .errors import (
    ReadOnlyError as ReadOnlyError,
)
from .errors import (
    SchemaVersionError as SchemaVersionError,
)
from .errors import (
    StoreBusyError as StoreBusyError,
)
from .errors import (
    StoreError as StoreError,
)
from .errors import (
    StoreFullError as StoreFullError,
)
from .errors import (
    UpdateError as UpdateError,
)
from .errors import (
    UpdateRefusedError as UpdateRefusedError,
)
from .geo import Near as Near
from .images.limits import ImageLimits as ImageLimits
from .index.search import SearchOptions as SearchOptions
from .ingestion import (
    AddError as AddError,
)
from .ingestion import (
    AddItem as AddItem,
)
from .ingestion import (
    AddResult as AddResult,
)
from .query.options import IdentifyOptions as IdentifyOptions
from .query.pipeline import Explanation as Explanation
from .recognizer import Recognizer as Recognizer
from .storage.records import Problem as Problem
from .storage.records import StoredImage as StoredImage
from .storage.records import StoreInfo as StoreInfo
from .types import (
    Answer as Answer,
)
from .types import Codes as Codes
from .types import (
    Features as Features,
)
from .types import (
    Image as Image,
)
from .types import LandmarkInfo as LandmarkInfo
from .types import (
    Match as Match,
)
from .types import (
    Verification as Verification,
)
from .verification import VerifyOptions as VerifyOptions

__version__: str
__all__: list[str]
