import json
import time

import jax
import pytest

from amopo_jax.plan import plan
from amopo_jax.types import RunFailure

SMALL = {"model__attention": "xla", "model__compute_dtype": "bfloat16", "batch__max_pairs": 16}


@pytest.mark.slow
def test_the_table_tells_whether_it_fits_and_what_is_assumed(amopo, config_file, tpu_devices, tmp_path):
  tpu_devices("v5e:2x2")
  file = tmp_path / "plan.json"
  status, out, err = amopo("plan", f"--config={config_file(**SMALL)}", "--topology=v5e:2x2", f"--json={file}")
  assert status == 0, err
  assert out.startswith("v5e:2x2: fits\n")
  assert "\nassumed\n" in out
  assert "v5e:2x2: compiling the step" in err
  assert json.loads(file.read_text())["plans"][0]["fits"]


def test_json_alone_is_printed_alone(amopo, config_file):
  status, out, _ = amopo("plan", f"--config={config_file()}", "--topology=h100:4,a100:8", "--json")
  assert status == 0
  assert [plan["topology"] for plan in json.loads(out)["plans"]] == ["h100:4", "a100:8"]


def test_a_topology_whose_compiler_refuses_does_not_end_the_others(amopo, config_file, monkeypatch):
  def refuse_one(case, workload, tell):
    if case.topology.name == "h100:4":
      raise RunFailure("the TPU's compiler refused the step: INTERNAL")
    return make_plan(case, workload, tell)

  make_plan = plan.make_plan
  monkeypatch.setattr(plan, "make_plan", refuse_one)
  status, out, err = amopo("plan", f"--config={config_file()}", "--topology=h100:4,a100:8", "--json")
  assert status == 1
  assert err.splitlines() == ["amopo plan: h100:4: the TPU's compiler refused the step: INTERNAL"]
  assert [found["topology"] for found in json.loads(out)["plans"]] == ["a100:8"]


def test_no_program_for_absent_devices_is_looked_for_in_the_cache(amopo, config_file):
  amopo("plan", f"--config={config_file()}", "--topology=h100:4")
  assert not jax.config.values["jax_enable_compilation_cache"]


def test_assumptions_are_flags(amopo, config_file):
  flags = ("--tokens_per_pair=77", "--scored_share=0.5", "--pairs=123", "--rows_per_chip=5")
  _, out, _ = amopo("plan", f"--config={config_file()}", "--topology=h100:4", "--json", *flags)
  content = json.loads(out)
  values = {name: content["assumptions"][name] for name in ("tokens_per_pair", "scored_share", "pairs")}
  assert values == {"tokens_per_pair": 77, "scored_share": 0.5, "pairs": 123}
  assert content["plans"][0]["rows_per_chip"] == 5


@pytest.mark.parametrize(
  "arguments, message",
  [
    ((), "amopo plan: --topology is missing: generation and chips"),
    (("--topology=v9:2x2",), "amopo plan: --topology=v9:2x2: unknown generation 'v9'; there are v5e"),
    (("--topology=h100:8,v5e:3x3",), "amopo plan: --topology=v5e:3x3: there is no such slice"),
    (("--topology=h100:3",), "amopo plan: h100:3: config.batch: 8 rows per micro-batch do not divide over 3"),
    (("--topology=h100:8", "--config.model.remat=some"), "amopo plan: h100:8: config.model.remat: 'some' is unknown"),
    (
      ("--topology=v5e:2x2,9999999*v5e:2x2",),
      "amopo plan: --topology=9999999*v5e:2x2: 9999999 slices; give 128 at most",
    ),
    (("--topology=h100:4,h100:48", "--rows_per_chip=1"), "amopo plan: h100:48: config.mesh.fsdp=48 does not divide"),
    (("--topology=h100:8", "--json=no/such/plan.json"), "amopo plan: --json=no/such/plan.json: no file can be written"),
    (("--topology=h100:8", "--rows_per_chip=-1"), "amopo plan: flag --rows_per_chip=-1"),
    (("--topology=h100:8", "--scored_share=2"), "amopo plan: flag --scored_share=2"),
  ],
)
def test_a_mistake_is_one_line(amopo, config_file, arguments, message):
  status, out, err = amopo("plan", f"--config={config_file()}", *arguments)
  assert (status, out) == (2, "")
  assert err.startswith(message)
  assert err.count("\n") == 1


@pytest.mark.slow
def test_a_model_of_32_billion_fits_a_pod_and_not_eight_chips(amopo, tpu_devices, tmp_path):
  tpu_devices("v5e:2x2")
  file = tmp_path / "plan.json"

  def plan_of(topology):
    began = time.monotonic()
    status, _, err = amopo("plan", "--config=configs/qwen2_5_32b.py", f"--topology={topology}", f"--json={file}")
    assert status == 0, err
    assert time.monotonic() - began < 300
    return json.loads(file.read_text())["plans"][0]

  pod, host = plan_of("v5e:16x16"), plan_of("v5e:2x4")
  assert pod["fits"]
  assert (pod["rows_per_chip"], pod["row_length"]) == (1, 2048)
  assert not host["fits"]
  assert {"v5e:2x4", "v5e:8x16"} <= {trial["topology"] for trial in host["trials"] if trial["fits"]}


@pytest.mark.slow
def test_products_that_the_compiler_makes_loops_of_count_whole(amopo, tpu_devices, tmp_path):
  tpu_devices("v5e:2x2")
  file = tmp_path / "plan.json"
  arguments = ("--config=configs/qwen2_5_7b.py", "--topology=v5e:4x8", "--rows_per_chip=1", f"--json={file}")
  status, _, err = amopo("plan", *arguments)
  assert status == 0, err
  [found] = json.loads(file.read_text())["plans"]
  by_hand = 109.2e12  # docs/results/2026-11-28-plan-7b.md
  assert found["cost"]["flops"] + found["estimate"]["attention_flops"] == pytest.approx(by_hand, rel=0.01)
