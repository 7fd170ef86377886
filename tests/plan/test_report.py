import json

import pytest

from amopo_jax.plan.ahead import Memory
from amopo_jax.plan.chips import GIB, TPUS
from amopo_jax.plan.collectives import Collective
from amopo_jax.plan.cost import Cost
from amopo_jax.plan.estimate import Estimate, Workload
from amopo_jax.plan.plan import Plan
from amopo_jax.plan.report import assumptions, to_json, to_lines
from amopo_jax.plan.search import Trial

ESTIMATE = Estimate(
  pairs_per_step=20.0,
  model_flops=1e12,
  attention_flops=1e11,
  seconds={"products": 1.0, "memory": 0.5, "links": 0.25, "network": 0.0},
  bound="products",
  step_seconds=(1.0, 1.75),
  utilization=(0.7, 0.4),
  pairs_per_second=(20.0, 11.4),
  steps=1200,
  hours=(0.33, 0.58),
  chip_hours=(85.0, 149.0),
)
FITS = Plan(
  topology="v5e:16x16",
  num_chips=256,
  mesh={"data": 1, "fsdp": 256, "tensor": 1},
  overrides={"batch.rows": 256},
  rows_per_chip=1,
  row_length=2048,
  micro_batches=1,
  is_compiled=True,
  fits=True,
  chip_memory=16 * GIB,
  memory=Memory(GIB, 2 * GIB, 0, 1024, 3 * GIB + 4096, 5 * GIB, 9 * GIB, None),
  cost=Cost(2e12, 4e9, {"all-gather": Collective(10, 1e9, 0.0)}),
  estimate=ESTIMATE,
  compile_seconds=61.0,
  trials=[],
)
REFUSED = FITS._replace(
  fits=False,
  memory=Memory(6 * GIB, 12 * GIB, 0, 1024, 18 * GIB, None, 24 * GIB, round(15.75 * GIB)),
  cost=None,
  estimate=None,
  trials=[
    Trial("v5e:16x16", {"model.remat": "full"}, True, False, 19 * GIB, True),
    Trial("v5e:16x16", {"model.param_dtype": "bfloat16"}, False, False, 17 * GIB, False),
    Trial("v5p:8x8x8", {"batch.accumulation": 2}, True, True, 14 * GIB, True),
  ],
)


def test_a_plan_that_fits_tells_memory_cost_and_time():
  text = "\n".join(to_lines(FITS, TPUS["v5e"]))
  for part in (
    "v5e:16x16: fits",
    "data 1 × fsdp 256 × tensor 1 = 256 chips",
    "1 of 2,048 tokens, 1 micro-batch(es) a step",
    "--config.batch.rows=256",
    "compiled in 61 s",
    "9.00, of the 16.00 that there are",
    "2.100 TFLOP at 197 TFLOP/s: 1.000 s",
    "10 of 100.0 MB, 1.00 GB",
    "1.000 to 1.750, bound by products",
    "70% to 40%",
    "1,200",
    "85.0 to 149.0",
  ):
    assert part in text
  assert "network" not in text


def test_a_plan_that_does_not_fit_tells_what_would_and_what_was_tried():
  lines = to_lines(REFUSED, TPUS["v5e"])
  text = "\n".join(lines)
  assert lines[0] == "v5e:16x16: DOES NOT FIT"
  assert "at least 24.00, which is more than the 15.75 that there are" in text
  fitting = lines.index("  what would fit")
  assert lines[fitting + 1] == "    --topology=v5p:8x8x8 --config.batch.accumulation=2: 14.00 GiB per chip"
  assert "    --config.model.remat=full: 19.00 GiB per chip" in lines[fitting + 2 :]
  assert (
    "--config.model.param_dtype=bfloat16: 17.00 GiB per chip for the arrays alone  (computes something else)" in text
  )


def test_where_nothing_fits_it_says_so():
  assert "  nothing that was tried fits" in to_lines(REFUSED._replace(trials=REFUSED.trials[:2]), TPUS["v5e"])


def test_a_formula_is_called_one():
  assert "formula; there is no compiler" in "\n".join(to_lines(FITS._replace(is_compiled=False), TPUS["v5e"]))


def test_json_holds_all_of_it():
  workload = Workload(2400, 0.64, 9000)
  content = json.loads(json.dumps(to_json([FITS, REFUSED], workload)))
  one, other = content["plans"]
  assert (one["fits"], other["fits"]) == (True, False)
  assert one["memory"]["temporaries"] == 5 * GIB
  assert one["cost"]["collectives"]["all-gather"] == {"count": 10, "link_bytes": 1e9, "network_bytes": 0.0}
  assert one["estimate"]["step_seconds"] == [1.0, 1.75]
  assert other["trials"][2]["overrides"] == {"batch.accumulation": 2}
  assert content["assumptions"]["tokens_per_pair"] == 2400
  assert content["assumptions"]["notes"] == assumptions(workload)
  assert set(content["versions"]) == {"jax", "jaxlib", "amopo_jax"}


@pytest.mark.parametrize("words", ["2,400 tokens", "9,000 training pairs", "published peaks", "read each array once"])
def test_what_is_assumed_is_said(words):
  assert words in " ".join(assumptions(Workload(2400, 0.64, 9000)))


def test_what_lies_on_the_hosts_is_shown_beside_the_chip_s_memory():
  lines = to_lines(FITS._replace(memory=FITS.memory._replace(host=3 * GIB)), TPUS["v5e"])
  (line,) = (line for line in lines if "on its host" in line)
  assert "3.00, which go to the chip and back in every step" in line
  assert not any("on its host" in line for line in to_lines(FITS, TPUS["v5e"]))
