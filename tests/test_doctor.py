import json
from importlib.metadata import version
from importlib.util import find_spec

import jax
import pytest

from amopo_jax import doctor
from amopo_jax.types import InputError


def test_the_machine():
  found = dict(doctor.describe_machine())
  assert found["jax"] == jax.__version__
  assert found["devices"].startswith("8 × cpu")
  assert found["libtpu"] == (version("libtpu") if find_spec("libtpu") else "not installed")
  assert "GiB" in found.get("memory", found.get("memory per device", ""))


def test_a_workdir_as_a_model(trained):
  found = dict(doctor.describe_model(str(trained[0])))
  assert found["architecture"] == "Qwen2ForCausalLM"
  assert found["layers × width"] == "2 × 32"
  assert found["weights"].startswith("step ")


def test_a_data_file(tmp_path):
  responses = lambda *scores: [{"content": "x", "scores": {"tone": score}} for score in scores]
  records = [{"prompt": "?", "responses": responses(1, 3), "chosen": 1}, {"prompt": "?", "responses": responses(2, 4)}]
  path = tmp_path / "data.jsonl"
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  assert dict(doctor.describe_data(str(path), "native")) == {
    "records": "2, 1 of them say which response was chosen",
    "dimension tone": "4 scores from 1 to 4, mean 2.50",
  }


def test_a_whole_config_by_the_checks_of_a_run(make_spec):
  found = dict(doctor.describe_config(make_spec(train__steps=5)))
  assert found["weights"] == "random"
  assert found["data world"].startswith("4")
  assert found["contexts"] == "helpfulness, correctness"
  assert found["steps"] == "5"
  assert dict(doctor.describe_config(make_spec()))["steps"].startswith("about ")


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"optim__name": "adam"}, r"config\.optim\.name"),
    ({"optim__schedule": "step"}, r"config\.optim\.schedule"),
    ({"objective__alpha": "gaussian_flat"}, r"config\.objective\.alpha: gaussian_flat is normalised over the batch"),
    ({"model__remat": "some"}, r"config\.model\.remat"),
    ({"data__train__world__path": "/no/such.jsonl"}, r"/no/such\.jsonl: no such file"),
  ],
)
def test_a_mistake_is_found_as_a_run_would_find_it(make_spec, overrides, message):
  with pytest.raises(InputError, match=message):
    list(doctor.describe_config(make_spec(**overrides)))


def test_a_config_that_skips_records_is_warned_about(make_spec, world, tmp_path):
  path = tmp_path / "some.jsonl"
  path.write_text((world / "train.jsonl").read_text() + "{broken\n")
  spec = make_spec(data__train={"some": {"path": str(path), "format": "native", "weight": 1.0}}, data__on_error="skip")
  warnings = [finding for what, finding in doctor.describe_config(spec) if what == "warning"]
  assert "1 of 49 records (2%) are skipped" in warnings[0]
  assert f"1 × such as {path}:49: broken JSON" in warnings[1]
