import pytest

from amopo_jax.plan import plan as planning
from amopo_jax.plan.ahead import Attempt, Memory
from amopo_jax.plan.case import check_cases
from amopo_jax.plan.cost import Cost
from amopo_jax.plan.estimate import Workload
from amopo_jax.plan.plan import make_plan, with_remedies
from amopo_jax.plan.topology import parse_topology

WORKLOAD = Workload(tokens_per_pair=64, scored_share=0.5, pairs=160)


def test_a_run_that_fits_is_counted_and_timed(case):
  said = []
  found = make_plan(case("v5e:2x2", rows_per_chip=2, mesh__tensor=2), WORKLOAD, said.append)
  assert found.fits
  assert found.is_compiled
  assert (found.topology, found.num_chips, found.rows_per_chip, found.micro_batches) == ("v5e:2x2", 4, 2, 1)
  assert found.mesh["tensor"] == 2
  assert found.memory.needed < found.chip_memory
  assert found.cost.flops > 0
  assert found.estimate.pairs_per_step == 2 * 2 * 128 / 64
  assert found.compile_seconds > 0
  assert found.trials == []
  assert [text.partition(",")[0] for text in said] == [
    "v5e:2x2: compiling the step",
    "v5e:2x2: fits",
  ]


def test_a_run_that_does_not_fit_is_not_timed_but_searched(case, monkeypatch):
  refused = Attempt(None, Memory(1, 1, 0, 1, 3, None, 20, 16), 1.0)
  monkeypatch.setattr(planning, "try_step", lambda parts, num_contexts: refused)
  monkeypatch.setattr(planning, "search", lambda case, tell: ["a trial"])
  here = case()
  found = with_remedies(make_plan(here, WORKLOAD, lambda text: None), here, lambda text: None)
  assert not found.fits
  assert (found.cost, found.estimate, found.trials) == (None, None, ["a trial"])
  assert found.memory == refused.memory


@pytest.mark.parametrize("arch, fits", [({}, True), ({"vocab_size": 2**29}, False)])
def test_gpus_are_planned_by_formula(make_spec, arch, fits):
  spec = make_spec(**{f"model__arch__{key}": value for key, value in arch.items()})
  [case] = check_cases(spec, [parse_topology("h100:8")], 0)
  found = make_plan(case, WORKLOAD, lambda text: None)
  assert not found.is_compiled
  assert found.fits == fits
  assert isinstance(found.cost, Cost) == fits
  whole = with_remedies(found, case, lambda text: None)
  assert whole == found if fits else [trial for trial in whole.trials if trial.fits and not trial.was_compiled]
