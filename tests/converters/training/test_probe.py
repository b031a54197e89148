"""Figures of the quick measure on made-up scores."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch: make test-converters")
pytestmark = pytest.mark.torch

from delf_edge.converters.training.probe import Questions, average_precision, expand, figures, votes  # noqa: E402


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([0, 1, 2]), {0, 1}) == 1.0
    # ranks 1 and 3: (1 + 1) / 2 / 2 + (1/2 + 2/3) / 2 / 2
    assert average_precision(np.array([0, 2, 1]), {0, 1}) == pytest.approx(0.5 + (1 / 2 + 2 / 3) / 4)


def test_figures_of_perfect_and_of_useless_scores() -> None:
    asked = Questions("x", ["a", "b"], ["0", "1", "2", "3"], [[0], [1]])
    good = np.array([[9, 0, 1, 2], [0, 9, 2, 1]], np.float32)
    assert figures(good, asked) == {"map": 1.0, "interval": [1.0, 1.0], "top1": 1.0, "named": 1.0}
    assert figures(-good, asked)["top1"] == 0.0


def test_cells_vote_for_the_photo_that_has_their_like() -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(5, 20, 16)).astype(np.float32)
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
    assert votes([cells[3]], list(cells), k=2)[0].argmax() == 3


def test_expansion_draws_neighbours_together() -> None:
    database = np.eye(6, dtype=np.float32)
    database[1] = [0.8, 0.6, 0, 0, 0, 0]
    query = expand(database[:1], database, k=2)
    assert query[0] @ database[1] > database[0] @ database[1]
    np.testing.assert_allclose(np.linalg.norm(query), 1.0, rtol=1e-5)
