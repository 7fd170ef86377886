import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from amopo_jax.export import export
from amopo_jax.load import load_policy
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import (
  RunRecord,
  count_parameters,
  find_config,
  find_policy,
  is_workdir,
  read_run,
  write_atomically,
  write_run,
)
from amopo_jax.types import InputError


def load(source, **arguments):
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shardings = jax.tree.map(lambda _: here, abstract_params(source.config, jnp.float32))
  return load_policy(source, dtype=jnp.float32, shardings=shardings, **arguments)


@pytest.fixture(scope="module")
def arch(make_spec):
  return dict(make_spec().model.arch)


def test_random_weights_follow_the_seed(arch):
  source = find_policy("", arch)
  assert (source.path, source.step, source.tokenizer) == ("", None, "")
  a, b = (load(source, seed=seed)["embed"]["weight"] for seed in (0, 1))
  assert (a != b).any()


def test_a_workdir_gives_its_newest_checkpoint_or_the_one_that_is_named(trained):
  workdir = str(trained[0])
  newest = find_policy(workdir, {})
  steps = sorted(int(path.name) for path in (trained[0] / "checkpoints").iterdir())
  assert newest.step == steps[-1]
  assert newest.tokenizer == f"{workdir}/model"
  assert find_policy(workdir, {}, step=steps[0]).step == steps[0]


def test_several_processes_take_the_step_that_is_the_newest_of_the_first(trained, monkeypatch):
  """A run may have saved another before the others look."""
  first = min(int(path.name) for path in (trained[0] / "checkpoints").iterdir())
  monkeypatch.setattr("amopo_jax.policy.processes.from_first", lambda mine: first)
  assert find_policy(str(trained[0]), {}).step == first


def test_an_exported_model_is_the_same_policy(trained, tmp_path):
  export(str(trained[0]), str(tmp_path / "model"))
  source = find_policy(str(tmp_path / "model"), {})
  assert source.tokenizer == source.path == str(tmp_path / "model")
  jax.tree.map(np.testing.assert_array_equal, load(source), load(find_policy(str(trained[0]), {})))


@pytest.mark.parametrize(
  "path, with_arch, step, message",
  [
    ("", {}, None, r"config\.model: neither path nor arch is set"),
    ("WORKDIR", {"hidden_size": 64}, None, r"config\.model\.arch\.hidden_size: 64, but .*/run has 32; correct arch"),
    ("WORKDIR", {}, 99999, r"no checkpoint 99999; there are \["),
    ("/no/such", {}, 3, "a step was named, but this is not a workdir"),
    ("/no/such", {}, None, "/no/such: not a directory"),
  ],
)
def test_sources_that_cannot_be_are_refused(trained, arch, path, with_arch, step, message):
  given = arch | with_arch if with_arch else {}
  with pytest.raises(InputError, match=message):
    find_policy(path.replace("WORKDIR", str(trained[0])), given, step=step)


def test_an_arch_beside_a_path_must_be_that_of_the_model(trained, arch):
  workdir = str(trained[0])
  assert find_policy(workdir, arch) == find_policy(workdir, {})
  assert find_policy(workdir, arch | {"initializer_range": 0.5}).path == workdir  # the weights are there already
  llama = arch | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
  with pytest.raises(InputError, match=r'config\.model\.arch\.architectures: \["LlamaForCausalLM"\], but .* has'):
    find_policy(workdir, llama)


def test_the_architecture_alone_needs_no_model_where_it_is_given(trained, arch):
  config = find_policy("", arch).config
  assert find_config("no/such", arch) == find_config("", arch) == find_config(str(trained[0]), {}) == config
  with pytest.raises(InputError, match="neither path nor arch is set"):
    find_config("", {})


def test_a_workdir_without_a_checkpoint_says_so(trained, tmp_path):
  for name in ("run.json", "model/config.json"):
    write_atomically(epath.Path(tmp_path) / name, (trained[0] / name).read_text())
  with pytest.raises(InputError, match="no checkpoint; there are none yet"):
    find_policy(str(tmp_path), {})
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  (tmp_path / "model" / "config.json").unlink()
  with pytest.raises(InputError, match=r"model/config\.json: cannot be read .*; copy the workdir again"):
    find_policy(str(tmp_path), {})


def test_in_a_bucket_a_checkpoint_counts_once_it_is_complete(trained, bucket):
  del bucket
  there = epath.Path("gs://bucket/run")
  for name in ("run.json", "model/config.json"):
    (there / name).parent.mkdir(parents=True, exist_ok=True)
    (there / name).write_text((trained[0] / name).read_text())
  for step in (20, 40):
    (there / "checkpoints" / str(step) / "state").mkdir(parents=True)
    (there / "checkpoints" / str(step) / "state" / "manifest").write_text("")
  (there / "checkpoints" / "20" / "commit_success.txt").write_text("")
  assert find_policy("gs://bucket/run", {}).step == 20
  with pytest.raises(InputError, match=r"no checkpoint 40; there are \[20\]"):
    find_policy("gs://bucket/run", {}, step=40)


def test_the_record_of_a_run_survives_the_way_to_disk(make_spec, tmp_path):
  record = RunRecord(make_spec(mesh__rules=((".*", ("fsdp", None)),)), 7, "abc")
  write_run(str(tmp_path), record)
  assert read_run(str(tmp_path)) == record
  assert is_workdir(str(tmp_path))
  assert not is_workdir("")


def test_the_record_of_another_version_is_named(make_spec, tmp_path):
  write_run(str(tmp_path), RunRecord(make_spec(), 7, "abc"))
  (tmp_path / "run.json").write_text((tmp_path / "run.json").read_text().replace('"split_seed"', '"old_key"'))
  with pytest.raises(InputError, match=r"run\.json: config\.data\.old_key: unknown key.*another version of amopo_jax"):
    read_run(str(tmp_path))


def test_no_workdir_is_no_run(tmp_path):
  with pytest.raises(InputError, match=r"not a workdir \(no run\.json\)"):
    read_run(str(tmp_path))


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = epath.Path(tmp_path) / "deep" / "file"
  write_atomically(path, "old")
  monkeypatch.setattr(type(path), "replace", lambda self, target: (_ for _ in ()).throw(OSError("killed")))
  with pytest.raises(OSError, match="killed"):
    write_atomically(path, "new")
  assert path.read_text() == "old"


def test_parameters_are_counted(arch):
  embed, norms = 256 * 32, 5 * 32
  attention = 32 * (32 + 2 * 16) + (32 + 2 * 16) + 32 * 32  # kernels and biases of q, k, v; o
  assert count_parameters(find_policy("", arch).config) == embed + norms + 2 * (attention + 3 * 32 * 64)
