import pytest

from benchmarks import materials
from benchmarks.batches import Lengths, make_pairs
from benchmarks.peers.pairs import save
from benchmarks.peers.serve import Job
from benchmarks.shapes import SHAPES

CONTEXTS = (3, 9)


@pytest.fixture(scope="session")
def make_pairs_of(tmp_path_factory):
  """Draws pairs of some lengths with the noise of `materials`, and the folder with the weights."""

  def make(*lengths, place="after"):
    folder = tmp_path_factory.mktemp("materials")
    fields = SHAPES["tiny"] | {"initializer_range": 0.3}  # probabilities that differ, so that alpha and its noise show
    materials.write(folder, fields, len(lengths), len(CONTEXTS), seed=0)
    noise = materials.np.load(folder / "noise.npy")
    return folder, make_pairs(lengths, noise, place=place, words=fields["vocab_size"], seed=1, contexts=CONTEXTS)

  return make


@pytest.fixture(scope="session")
def make_job(make_pairs_of):
  """The job of a batch of pairs: `make_job(Lengths(…), …)`."""

  def make(*lengths, place="after", learning_rate=1e-3):
    folder, pairs = make_pairs_of(*lengths, place=place)
    save(folder / "batch.npz", pairs)
    return Job(
      model=str(folder / "model"),
      batch=str(folder / "batch.npz"),
      device="cpu",
      dtype="float32",
      learning_rate=learning_rate,
      beta=0.8,
      target_margin=2.0,
      options={},
    )

  return make


@pytest.fixture(scope="session")
def job(make_job):
  """Two pairs of different lengths in two contexts."""
  return make_job(Lengths(40, 7, 5), Lengths(33, 4, 9))
