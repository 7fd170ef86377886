"""Regime of every test: typed shapes are checked, ranks never promote silently, eight virtual CPU devices.

The checks sit in the import hook below, so the package itself pays nothing for them.
"""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from tests.xla import flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault(
  "JAX_DISABLE_MOST_OPTIMIZATIONS", "1"
)  # of tiny programs, here and in processes that a test starts
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # the TPU's compiler is used without a TPU, …
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # … by several workers at once
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags(8)}"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for this session, its workers and the processes they start
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="amopo-tests-")
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import io
from typing import ClassVar

import fsspec
import jax
import pytest
from etils.epath import backend as epath_backend
from fsspec.implementations.memory import MemoryFileSystem
from jax.experimental import topologies
from jaxtyping import install_import_hook
from rich.console import Console

install_import_hook("amopo_jax", "beartype.beartype")

from amopo_jax.cli.configs import spec_from_config
from amopo_jax.lab.write import write_world
from amopo_jax.mesh import give_virtual_devices_threads
from amopo_jax.train import train
from configs import base

jax.config.update("jax_numpy_rank_promotion", "raise")
give_virtual_devices_threads()  # `make_mesh` comes too late where a test has used the devices before


def pytest_collection_modifyitems(items):
  """The longest file first, so that the workers end together."""
  items.sort(key=lambda item: item.path.name != "test_train.py")


@pytest.fixture(scope="session")
def fixtures():
  """The folder of small files written by this project."""
  return pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
  """A folder with 48 training and 8 held-out records of the synthetic world, and their tokenizer."""
  folder = tmp_path_factory.mktemp("world") / "world"
  write_world(folder, seed=0, num_train=48, num_heldout=8)
  return folder


@pytest.fixture(scope="session")
def make_config(world):
  """Makes the ConfigDict of a tiny run on the world; keyword "a__b" overrides config.a.b."""

  def make(**overrides):
    config = base.get_config()
    config.model.arch = {
      "architectures": ["Qwen2ForCausalLM"],
      "model_type": "qwen2",
      "vocab_size": 256,
      "hidden_size": 32,
      "num_hidden_layers": 2,
      "num_attention_heads": 4,
      "num_key_value_heads": 2,
      "intermediate_size": 64,
      "rms_norm_eps": 1e-6,
      "rope_theta": 10000.0,
      "max_position_embeddings": 1024,
      "tie_word_embeddings": True,
      "hidden_act": "silu",
    }
    config.data.train.world = base.source(f"{world}/train.jsonl")
    config.data.heldout.world = base.source(f"{world}/heldout.jsonl")
    config.data.tokenizer = f"{world}/tokenizer"
    for name in ("helpfulness", "correctness"):
      config.data.contexts[name] = base.context(dimension=name, template="focus on {dimension} score {score} .", high=4)
    config.batch.update(rows=8, group_rows=2, row_length=128, accumulation=1)
    config.optim.update(learning_rate=1e-2, warmup_fraction=0.0)
    config.train.update(tensorboard=False, epochs=1)
    for key, value in overrides.items():
      with config.unlocked():
        section, _, name = key.rpartition("__")
        node = config
        for part in section.split("__") if section else ():
          node = node[part]
        node[name] = value
    return config

  return make


@pytest.fixture(scope="session")
def make_spec(make_config):
  """Makes the `RunSpec` of a tiny run; overrides as `make_config`."""
  return lambda **overrides: spec_from_config(make_config(**overrides))


@pytest.fixture
def console():
  """A console that keeps what it is told: `console.file.getvalue()`."""
  return Console(file=io.StringIO(), width=200, force_terminal=False)


@pytest.fixture(scope="session")
def tpu_devices():
  """Makes the abstract devices of a topology, such as "v5e:2x2", to compile for; skips without the TPU's compiler."""
  pytest.importorskip("libtpu", reason="no libtpu here; requirements-dev.txt brings it on Linux with x86-64")
  return lambda topology, **more: topologies.get_topology_desc(topology, platform="tpu", **more).devices


@pytest.fixture(scope="session")
def trained(make_spec, tmp_path_factory):
  """The workdir of a complete run of three epochs, and what it said."""
  workdir = tmp_path_factory.mktemp("trained") / "run"
  said = Console(file=io.StringIO(), width=200, force_terminal=False)
  train(make_spec(train__epochs=3), str(workdir), said)
  return workdir, said.file.getvalue()


class Bucket(MemoryFileSystem):
  """An object store in memory behind gs://; `written` lists the objects in the order in which they were begun."""

  protocol = "gs"
  store: ClassVar[dict] = {}
  pseudo_dirs: ClassVar[list] = [""]
  written: ClassVar[list] = []

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix("gs://"))

  def _open(self, path, mode="rb", **options):
    if "w" in mode:
      self.written.append(path)
    return super()._open(path, mode, **options)


@pytest.fixture
def bucket(monkeypatch):
  """gs:// without a network."""
  for name in ("store", "written"):
    monkeypatch.setattr(Bucket, name, type(getattr(Bucket, name))())
  monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
  cached = epath_backend._FileSystemSpecBackend._get_filesystem
  for implementation in (Bucket, "gcsfs.GCSFileSystem"):
    for name in ("gs", "gcs"):
      fsspec.register_implementation(name, implementation, clobber=True)
    cached.cache_clear()
    if implementation is Bucket:
      yield Bucket()
