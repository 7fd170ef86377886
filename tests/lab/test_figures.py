"""What the pictures are drawn from."""

import numpy as np

from amopo_jax.lab import figures
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.studies import STUDIES, Arm

STUDY = STUDIES["baselines"]._replace(arms=(Arm("amopo"),))


def test_a_point_is_a_context_and_a_mean_over_seeds():
  scores = lambda value: dict.fromkeys(DIMENSIONS, value)
  answers = {
    "seed0/amopo": {"scores": {"sampled": {"overall": scores(1.0), "correctness": scores(2.0)}}, "asked": {}},
    "seed1/amopo": {"scores": {"sampled": {"overall": scores(3.0), "correctness": scores(4.0)}}, "asked": {}},
    "seed1/other": {"scores": {"sampled": {"overall": scores(0.0)}}, "asked": {"0": {"overall": scores(0.0)}}},
  }
  points = figures._points(answers, "amopo", *DIMENSIONS[:2])
  np.testing.assert_allclose(points, [[2.0, 2.0], [3.0, 3.0]])
  assert len(figures._points(answers, "other", *DIMENSIONS[:2])) == 2


def test_without_curves_there_is_no_picture(tmp_path):
  figures.draw_curves(STUDY, {"amopo": {}}, tmp_path / "curves.png")
  assert not list(tmp_path.iterdir())
