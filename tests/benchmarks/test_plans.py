from benchmarks.plans import CONFIGS, HEAD, PAGE, TABLE, TOPOLOGIES, line, load, table

PLAN = {
  "topology": "v5e:8x8",
  "num_chips": 64,
  "fits": True,
  "chip_memory": 16 * 2**30,
  "made": {"date": "2026-11-28T05:19:29+00:00", "commit": "180c8ebf2d8c"},
  "memory": {"needed": 8 * 2**30},
  "trials": [],
  "cost": {"flops": 2e12},
  "estimate": {
    "attention_flops": 1e11,
    "step_seconds": [1.0, 2.0],
    "utilization": [0.8, 0.4],
    "pairs_per_second": [60.0, 30.0],
    "hours": [0.5, 1.0],
    "chip_hours": [32.0, 64.0],
  },
}


def test_a_plan_is_a_line_of_the_table():
  cells = line("a", PLAN)
  assert cells == (
    "a", "v5e:8x8", "64", "8.0 of 16", "2.1", "1.00 to 2.00", "80% to 40%", "60 to 30", "0.5 to 1", "32 to 64",
    "2026-11-28, 180c8eb",
  )  # fmt: skip
  refused = line("a", PLAN | {"fits": False})
  assert refused[3] == "at least 8.0 of 16"
  change = {"topology": "v5e:8x8", "overrides": {"optim.offload": True}, "needed": 4 * 2**30}
  trials = [change | {"fits": False}, change | {"fits": True}]
  mended = line("a", PLAN | {"fits": False, "trials": trials})
  assert mended[3] == "at least 8.0 of 16; fits with `--config.optim.offload=True`: 4.0"
  assert len(cells) == len(refused) == len(HEAD)
  assert table({"a v5e:8x8": PLAN}).splitlines()[2] == f"| {' | '.join(cells)} |"


def test_the_page_has_a_place_for_it_and_every_config_is_there():
  assert TABLE.search(PAGE.read_text())
  assert all(load(name).model.arch for name in CONFIGS)
  assert {topology.partition(":")[0] for topology in TOPOLOGIES} == {"v5e", "v5p", "v6e"}
