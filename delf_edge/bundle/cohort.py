"""The cohort: coded photos of nobody's places, which a bundle brings along so that a stranger is known by them.

A dome looks like any other dome. So a query is compared with a hundred photos of other places too, and what it finds
there is what it would find anywhere: an answer has to beat it (adaptive score normalisation, as in the verification of
speakers; Matejka et al., Interspeech 2017). A cohort is asked for votes and cosines alone, so it has no keypoints. Of
the photos themselves a bundle holds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delf_edge.bundle.arrays import named, require_forms
from delf_edge.errors import BundleError
from delf_edge.types import Codebook, UInt8Array, UInt16Array


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """C coded photos with T features in all, each photo of another place; the arrays of `cohort.npz`.

    Attributes:
        counts: uint16 (C,), features of each photo, in order.
        words: uint16 (T,), their coarse centroids.
        codes: uint8 (T, M), their PQ codes.
        global_codes: int8 (C, G), as in `types.Codes`.
    """

    counts: UInt16Array
    words: UInt16Array
    codes: UInt8Array
    global_codes: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.counts)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], codebook: Codebook) -> Cohort:
        """A cohort whose arrays fit a codebook.

        Raises:
            BundleError: one is missing, or of another type or shape, or a word is out of range.
        """
        own = named(arrays, [f.name for f in fields(cls)], "cohort")
        found = cls(**own)
        T = int(found.counts.sum()) if found.counts.dtype == np.uint16 and found.counts.ndim == 1 else -1
        forms = {
            "counts": (np.uint16, (found.counts.size,)),
            "words": (np.uint16, (T,)),
            "codes": (np.uint8, (T, codebook.code_size)),
            "global_codes": (np.int8, (found.counts.size, codebook.global_dim)),
        }
        require_forms(own, forms, "cohort", "code the photos with this codebook")
        if T and int(found.words.max()) >= codebook.n_words:
            raise BundleError(f"cohort: word {int(found.words.max())}, but the codebook has {codebook.n_words}")
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` reads."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
