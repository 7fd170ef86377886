"""What the pictures are drawn from."""

import numpy as np
import pytest

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
  figures.draw_curves(
    STUDY, {"amopo": {"logps/chosen": [(1, -1.0)], "alpha/overall": [(1, 1.0)]}}, tmp_path / "curves.png"
  )
  assert not list(tmp_path.iterdir())


@pytest.fixture
def drawn(monkeypatch):
  """The figures that are drawn, instead of files."""
  found = []
  monkeypatch.setattr(figures, "_save", lambda figure, out: found.append(figure))
  return found


def answer(value):
  scores = dict.fromkeys([*DIMENSIONS, "mean"], value)
  return {"scores": {"sampled": {"overall": scores}}, "asked": {}}


def test_every_row_shows_its_own_start_and_its_own_optimum(drawn, tmp_path):
  noisy = next(arm.ground for arm in STUDIES["domains"].arms if arm.ground.name == "programs")
  study = STUDY._replace(arms=(Arm("amopo"), Arm("amopo", noisy)))
  runs = {"start": 1.0, "start@programs": 0.5, "amopo": 2.0, "amopo@programs": 1.5}
  answers = {f"seed0/{name}": answer(value) for name, value in runs.items()}
  optima = {
    name: dict.fromkeys([*DIMENSIONS, "mean"], value) for name, value in {"default": 4.0, "programs": 3.0}.items()
  }
  figures.draw_scores(study, answers, optima, tmp_path / "scores.png")
  panel = drawn[0].axes[0]
  assert [bar.get_width() for bar in panel.patches] == [1.0, 0.5, 2.0, 1.5]
  starts, best = [
    [segment[0][0] for segment in one.get_segments()] for one in panel.collections if one.get_zorder() == 3
  ]
  assert (starts, best) == ([1.0, 0.5, 1.0, 0.5], [4.0, 3.0, 4.0, 3.0])


def test_what_others_beat_is_grey(drawn, tmp_path):
  study = STUDY._replace(arms=(Arm("amopo"), Arm("simpo")))
  answers = {"seed0/start": answer(1.0), "seed0/amopo": answer(3.0), "seed0/simpo": answer(2.0)}
  figures.draw_front(study, answers, tmp_path / "front.png")
  assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["others", "AMoPO, Gaussian weights"]


def test_a_context_has_one_colour_and_a_weight_of_one_is_not_drawn(drawn, tmp_path):
  study = STUDY._replace(arms=(Arm("amopo"), Arm("only_correctness")))
  line = [(1, 0.5), (2, 0.6)]
  curves = {
    "amopo": {f"{kind}{name}": line for kind in ("rewards/margins/", "alpha/") for name in ("overall", "correctness")},
    "only_correctness": {"rewards/margins/correctness": line, "alpha/correctness": line},
  }
  figures.draw_curves(study, curves, tmp_path / "curves.png")
  panels = drawn[0].axes
  colours = [{one.get_label(): one.get_color() for one in panel.lines} for panel in panels]
  assert colours[0] == colours[1]
  assert colours[2] == {"correctness": colours[0]["correctness"]}
  assert colours[3] == {}
  assert [panel.get_xlabel() for panel in panels] == ["", "step", "step", ""]
  assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["overall", "correctness"]
