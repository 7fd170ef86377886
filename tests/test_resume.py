import json

import pytest

from amopo_jax.policy import read_run
from amopo_jax.prepare import prepare
from amopo_jax.resume import FREE_TO_CHANGE
from amopo_jax.run_codec import difference
from amopo_jax.types import InputError


def test_what_does_not_change_the_result_may_change_when_resuming(trained, make_spec):
  spec = make_spec(
    train__epochs=3,
    mesh__tensor=2,
    mesh__context=2,
    optim__offload=True,
    batch__accumulation=2,
    model__remat="none",
    train__log_every=5,
  )
  assert prepare(spec, str(trained[0])).num_steps == read_run(str(trained[0])).num_steps


def test_every_key_that_may_change_exists(make_spec):
  keys = {line.partition(":")[0] for line in difference(make_spec(), make_spec())}
  assert keys == set()
  flat = make_spec()
  for key in FREE_TO_CHANGE:
    _, section, *name = key.rstrip(".").split(".")
    node = getattr(flat, section)
    assert not name or name[0] in node.__dataclass_fields__


def test_a_workdir_of_another_tokenizer_is_refused(trained, make_spec, tmp_path):
  record = json.loads((trained[0] / "run.json").read_text()) | {"fingerprint": "another"}
  (tmp_path / "run.json").write_text(json.dumps(record))
  with pytest.raises(InputError, match="was begun with another tokenizer"):
    prepare(make_spec(train__epochs=3), str(tmp_path))
