import json

import pytest

from benchmarks.flops import Flops
from benchmarks.report import align, rates, ratios, step_table, write

PEAKS = {"xla": 50.0, "torch": 100.0}


def test_rates_are_of_the_median_step():
  found = rates([2.0, 4.0, 5.0], Flops(80.0, 120.0), pairs=2, tokens=40, peak_bytes=7, peaks=PEAKS)
  assert found["seconds_per_pair"] == 2.0
  assert found["pairs_per_second"] == 0.5
  assert found["tokens_per_second"] == 10
  assert found["share_of_peak"] == pytest.approx(0.2)
  assert found["executed_share_of_peak"] == pytest.approx(0.3)
  assert found["executed_share_of_peaks"] == {"xla": pytest.approx(0.6), "torch": pytest.approx(0.3)}
  assert found["spread"] == pytest.approx(3 / 4)


def test_ratios_are_taken_within_a_round():
  answers = {
    "ours": [{"seconds": 1.0}, {"seconds": 10.0}, {"seconds": 1.0}],
    "peer": [{"seconds": 2.0}, {"seconds": 20.0}],
  }
  assert ratios(answers, "ours") == {"ours": 1.0, "peer": 2.0}
  assert ratios({"peer": answers["peer"]}, "ours") == {}


def test_who_failed_stands_in_the_table_with_the_reason():
  found = {"a": rates([1.0], Flops(1e9, 2e9), pairs=1, tokens=3, peak_bytes=2_000_000_000, peaks={"xla": 4e9})}
  lines = step_table({"a": "first", "b": "second", "c": "third"}, found, {"b": "no wheel"}).splitlines()
  assert lines[1].split() == ["first", "1.000", "0%", "1.000", "3", "1", "25%", "2", "50%", "2.00"]
  assert lines[2] == "second     failed: no wheel"
  assert len(lines) == 3


def test_columns_line_up():
  assert align([("a", "b"), ("long", "1")]) == "a     b\nlong  1"


def test_a_file_says_where_it_comes_from(tmp_path):
  write(str(tmp_path / "out.json"), {"figure": 1})
  content = json.loads((tmp_path / "out.json").read_text())
  assert content["figure"] == 1
  assert {"date", "commit", "command", "processor", "cores", "memory_bytes"} <= content.keys()
