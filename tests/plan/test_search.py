import pytest

from amopo_jax.plan import search as searching
from amopo_jax.plan.ahead import Attempt, Memory
from amopo_jax.plan.search import search, show
from amopo_jax.types import RunFailure

GIB = 2**30


@pytest.fixture
def compiler(monkeypatch):
  """Takes the compiler's place: `limit(spec)` says whether a step fits; what it was asked is kept."""
  asked = []

  def answer(fits):
    def try_step(parts, num_contexts):
      asked.append(parts)
      executable = object() if fits(parts) else None
      return Attempt(executable, Memory(1, 1, 0, 1, 3, None, 20 * GIB, 16 * GIB), 0.0)

    monkeypatch.setattr(searching, "try_step", try_step)
    return asked

  return answer


def tell(text):
  _, did, what = text.partition(": ")
  assert did
  assert what.startswith(("trying ", "fits with "))
  assert what.endswith("the config as it is") or " --config." in what


def test_the_first_change_that_leaves_the_result_ends_the_search(case, compiler):
  asked = compiler(lambda parts: parts.spec.batch.accumulation == 2)
  trials = search(case(model__remat="dots"), tell)
  assert [trial.overrides for trial in trials] == [{"model.remat": "full"}, {"batch.accumulation": 2}]
  assert [trial.fits for trial in trials] == [False, True]
  assert all(trial.keeps_result and trial.was_compiled for trial in trials)
  assert len(asked) == 2


def test_else_other_results_and_more_chips_are_tried(case, compiler):
  compiler(lambda parts: parts.spec.optim.mu_dtype == "bfloat16" or parts.mesh.size == 8)
  trials = search(case(), tell)
  fitting = [(trial.topology, trial.overrides, trial.keeps_result) for trial in trials if trial.fits]
  assert fitting == [
    ("v5e:2x2", {"batch.accumulation": 2, "optim.mu_dtype": "bfloat16"}, False),
    ("v5e:2x4", {}, True),
  ]


def test_where_every_chip_has_one_row_rows_are_split_over_more_chips(case, compiler):
  compiler(lambda parts: parts.mesh.size == 8)
  trials = search(case(batch__rows=4, mesh__fsdp=4), tell)
  fitting = [(trial.topology, trial.overrides, trial.keeps_result) for trial in trials if trial.fits]
  assert fitting == [("v5e:2x4", {"mesh.fsdp": -1, "mesh.context": 2}, True)]


def test_a_trial_that_the_compiler_refuses_is_told_and_the_others_go_on(case, compiler, monkeypatch):
  compiler(lambda parts: parts.spec.batch.accumulation == 2)
  answer = searching.try_step

  def refusing(parts, num_contexts):
    if parts.spec.model.remat == "full" and parts.spec.batch.accumulation == 1:
      raise RunFailure("the TPU's compiler refused the step: no room in vmem")
    return answer(parts, num_contexts)

  monkeypatch.setattr(searching, "try_step", refusing)
  told = []
  trials = search(case(model__remat="dots"), told.append)
  assert [trial.overrides for trial in trials] == [{"batch.accumulation": 2}]
  assert "v5e:2x2: the TPU's compiler refused the step: no room in vmem" in told


def test_changes_that_cannot_be_there_are_left_out(case, compiler):
  compiler(lambda parts: False)
  trials = search(case(), tell)
  assert not any(trial.fits for trial in trials)
  # Two key heads are not split over four chips by the kernels, and eight rows of two parts not over 32 chips.
  assert {trial.topology for trial in trials} == {"v5e:2x2", "v5e:2x4", "v5e:4x4"}


def test_arrays_that_are_too_large_need_no_compiler(case, compiler, monkeypatch):
  asked = compiler(lambda parts: True)
  monkeypatch.setattr(searching, "argument_sizes", lambda parts, num_contexts: (17 * GIB, 16 * GIB, 0, GIB))
  trials = search(case(), tell)
  assert asked == []
  assert trials
  assert not any(trial.fits or trial.was_compiled for trial in trials)
  assert trials[0].needed == 34 * GIB


def test_overrides_are_shown_as_on_the_command_line():
  assert show({"model.remat": "full", "batch.rows": 4}) == "--config.model.remat=full --config.batch.rows=4"
