"""What a user may get wrong: one line with place, reason and remedy, nothing compiled, nothing touched.

Every case goes through the real command line against a workdir that holds a run.
"""

import hashlib
import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from amopo_jax.cli.main import main
from amopo_jax.export import export


@pytest.fixture
def compiled():
  """Names of what XLA was asked to compile; the caches are fresh, so that nothing hides behind an earlier test."""
  heard = []
  listen = lambda name, seconds, **kwargs: heard.append(name) if "backend_compile" in name else None
  jax.clear_caches()
  jax.monitoring.register_event_duration_secs_listener(listen)
  yield heard
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def case(trained, world, make_config, tmp_path, monkeypatch):
  """A finished run, its config and its data: copies that a test may spoil."""
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
  mine = shutil.copytree(world, tmp_path / "world")
  workdir = shutil.copytree(trained[0], tmp_path / "run")
  record = workdir / "run.json"
  record.write_text(record.read_text().replace(str(world), str(mine)))
  values = json.loads(json.dumps(make_config(train__epochs=3).to_dict()).replace(str(world), str(mine)))
  return types.SimpleNamespace(workdir=workdir, values=values, config=tmp_path / "config.py", world=mine, arguments=())


def fingerprint(folder):
  """Content and time of change of everything under a folder."""
  content = lambda path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
  return {str(path): (path.stat().st_mtime_ns, content(path)) for path in folder.rglob("*")}


def assert_refused(case, compiled, capfd, message):
  """Runs `amopo train` on the case."""
  if not (case.config.exists() or case.arguments):
    write_config(case)
  before = fingerprint(case.workdir)
  capfd.readouterr()
  with pytest.raises(SystemExit) as stop:
    main(["amopo", "train", f"--workdir={case.workdir}", *(case.arguments or [f"--config={case.config}"])])
  out, err = capfd.readouterr()
  assert stop.value.code == 2, out + err
  assert re.fullmatch(r"amopo train: [^\n]+\n", err), err
  assert re.search(message, err), err
  assert "Traceback" not in out + err
  assert fingerprint(case.workdir) == before
  assert compiled == []


PROGRAM = """
import json
from ml_collections import ConfigDict

def build(value):
  items = {{name: build(inner) for name, inner in value.items()}} if isinstance(value, dict) else {{}}
  return ConfigDict(items, sort_keys=False) if isinstance(value, dict) else value

def get_config():
  return build(json.loads({!r}))
"""


def write_config(case):
  case.config.write_text(PROGRAM.format(json.dumps(case.values)))


def in_config(path, value):
  """Sets a key of the config, which then is that of another run."""

  def spoil(case):
    *sections, name = path.split(".")
    node = case.values
    for section in sections:
      node = node[section]
    node[name] = value

  return spoil


def all_of(*spoils):
  return lambda case: [spoil(case) for spoil in spoils]


def without(section, name):
  return lambda case: case.values[section].pop(name)


def overridden(*overrides):
  def spoil(case):
    write_config(case)
    case.arguments = (f"--config={case.config}", *overrides)

  return spoil


def as_program(text):
  return lambda case: case.config.write_text(text)


TWICE = {"dimension": "correctness", "template": "plain", "low": 0, "high": 4}

CONFIG = {
  "missing key": (without("optim", "clip"), r"config\.optim\.clip: missing key; configs/base\.py"),
  "mistyped key": (in_config("optim.lerning_rate", 1.0), r"config\.optim\.lerning_rate: unknown key; the keys are"),
  "mistyped override": (overridden("--config.optim.lerning_rate=1"), r"config\.optim\.lerning_rate: unknown key; the"),
  "override in no section": (overridden("--config.optimizer.clip=1"), r"config\.optimizer: unknown key; the keys are"),
  "override below a value": (overridden("--config.seed.x=1"), r"config\.seed\.x: unknown key; config\.seed is a value"),
  "wrong type": (in_config("batch.rows", "many"), r"config\.batch\.rows: expected int, found 'many' \(str\)"),
  "wrong type in an override": (
    overridden("--config.batch.rows=many"),
    r"--config\.batch\.rows=many: .*; configs/base",
  ),
  "value for a section": (in_config("data.contexts", 3), r"config\.data\.contexts: expected a ConfigDict"),
  "number too small": (in_config("model.head_chunk", 0), r"config\.model\.head_chunk: 0 cannot be; the least is 1"),
  "no number": (in_config("optim.clip", float("nan")), r"config\.optim\.clip: nan cannot be; the least is 0"),
  "alpha": (in_config("objective.alpha", "gausian"), r"config\.objective\.alpha: 'gausian' is unknown; choose one of"),
  "ties": (in_config("objective.ties", "drop"), r"config\.objective\.ties: 'drop' is unknown; choose one of"),
  "objective": (in_config("objective.name", "ppo"), r"config\.objective\.name: 'ppo' is unknown; choose one of amopo"),
  "rule": (in_config("data.rule", "best"), r"config\.data\.rule: 'best' is unknown; choose one of"),
  "remat": (in_config("model.remat", "some"), r"config\.model\.remat: 'some' is unknown; choose one of"),
  "optimizer": (in_config("optim.name", "adam"), r"config\.optim\.name: 'adam' is unknown; choose one of adamw"),
  "schedule": (in_config("optim.schedule", "step"), r"config\.optim\.schedule: 'step' is unknown; choose one of"),
  "dtype": (
    in_config("model.param_dtype", "f16"),
    r"config\.model\.param_dtype: 'f16' is unknown; choose one of float32",
  ),
  "compute dtype": (in_config("model.compute_dtype", "f16"), r"config\.model\.compute_dtype: 'f16' is unknown; choose"),
  "format": (
    in_config("data.train.world.format", "csv"),
    r"config\.data\.train\.world\.format: 'csv' is unknown; choose",
  ),
  "place": (in_config("data.place", "middle"), r"config\.data\.place: 'middle' is unknown; choose one of before"),
  "too_long": (in_config("data.too_long", "trim"), r"config\.data\.too_long: 'trim' is unknown; choose one of cut"),
  "on_error": (
    in_config("data.on_error", "ignore"),
    r"config\.data\.on_error: 'ignore' is unknown; choose one of raise",
  ),
  "architecture": (in_config("model.arch.architectures", ["GPT2LMHeadModel"]), r"config\.model\.arch.*GPT2LMHeadModel"),
  "architecture's field": (in_config("model.arch.softcap", 3.0), r"config\.model\.arch.*softcap"),
  "no contexts": (in_config("data.contexts", {}), r"config\.data\.contexts: none given; add one"),
  "no data": (in_config("data.train", {}), r"config\.data\.train: no data set; add one"),
  "duplicate dimension": (in_config("data.contexts.again", TWICE), r"config\.data\.contexts: .*'correctness' occurs 2"),
  "empty score range": (
    in_config("data.contexts.helpfulness.high", 0.0),
    r"config\.data\.contexts: 'helpfulness' has low",
  ),
  "placeholder": (in_config("data.contexts.helpfulness.template", "{dimenson}"), r"'helpfulness'.*dimenson"),
  "chat template's variable": (
    in_config("data.template_kwargs", {"think": 1}),
    r"another config: config\.data\.template",
  ),
  "mesh over devices": (in_config("mesh.fsdp", 3), r"config\.mesh: .* does not cover 8 devices; make the product"),
  "mesh over the model": (
    all_of(in_config("model.arch.intermediate_size", 60), in_config("mesh.tensor", 8)),
    r"config\.mesh\.tensor=8 does not divide 60 of .*; choose another split",
  ),
  "rows over devices": (in_config("batch.rows", 4), r"config\.batch: 4 rows per micro-batch do not divide over 8"),
  "rows over groups": (in_config("batch.group_rows", 3), r"config\.batch: rows=8 must be a multiple of group_rows"),
  "sequence longer than a row": (
    in_config("data.max_length", 4096),
    r"config\.data\.max_length: 4096 is longer than a",
  ),
  "no length": (in_config("train.epochs", 0), r"config\.train: neither steps nor epochs is positive; set one"),
  "workdir of another config": (
    in_config("optim.clip", 1.0),
    r"run: belongs to a run of another config: config\.optim\.clip: 3\.0 != 1\.0; use another --workdir",
  ),
  "missing data file": (in_config("data.train.world.path", "no/such.jsonl"), r"another config.*no/such\.jsonl"),
  "missing model": (
    all_of(in_config("model.path", "./no/such"), in_config("model.arch", {})),
    r"\./no/such: not a directory; give a model directory",
  ),
  "no config": (lambda case: setattr(case, "arguments", ["--workdir=x"]), r"--config is missing; name a file"),
  "missing config file": (
    lambda case: setattr(case, "arguments", ["--config=no/such.py"]),
    r"--config=no/such\.py: no such file; name one",
  ),
  "unknown flag": (lambda case: setattr(case, "arguments", ["--confg=x.py"]), r"'confg'.*--help lists the flags"),
  "syntax error": (as_program("def get_config(:\n  pass\n"), r"config\.py:1: SyntaxError: .*; mend the config"),
  "config that raises": (
    as_program("def get_config():\n  return 1 / 0\n"),
    r"config\.py:2: ZeroDivisionError: division",
  ),
  "config that opens what is not there": (
    as_program("def get_config():\n  return open('/no/such')\n"),
    r"config\.py:2: FileNotFoundError",
  ),
  "config that imports what is not there": (
    as_program("import nowhere\n"),
    r"config\.py:1: ModuleNotFoundError: .*nowhere",
  ),
  "config with a wrong call": (
    as_program("from configs import base\ndef get_config():\n  return base.source(formt='x')\n"),
    r"config\.py:3: TypeError: .*formt",
  ),
  "config without get_config": (
    as_program("config = 1\n"),
    r"config\.py: defines no get_config\(\); a config file does",
  ),
  "config that is none": (
    as_program("def get_config():\n  return 3\n"),
    r"config\.py: get_config\(\) returns int, not a",
  ),
}


@pytest.mark.parametrize("name", CONFIG)
def test_a_mistake_in_the_config(case, compiled, capfd, name):
  spoil, message = CONFIG[name]
  spoil(case)
  assert_refused(case, compiled, capfd, message)


def in_record(change, number=2):
  """Edits one record of the training file; a text that `change` returns takes the place of its line."""

  def spoil(case):
    path = case.world / "train.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[number])
    text = change(record)
    lines[number] = text if isinstance(text, str) else json.dumps(record)
    path.write_text("\n".join(lines) + "\n")

  return spoil


def same_run(*spoils):
  """Changes the config and the record of the run alike, as if it had been begun like that."""

  def spoil(case):
    all_of(*spoils)(case)
    path = case.workdir / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": case.values}))

  return spoil


def set_prompt(record, text):
  record["prompt"] = [{"role": "user", "content": text}]


def set_score(value):
  return lambda record: record["responses"][0]["scores"].update(helpfulness=value)


LONG = "fig ant owl " * 200
WORDY = in_config("data.contexts.helpfulness.template", "focus on " * 200)

DATA = {
  "broken JSON": (in_record(lambda record: '{"prompt": '), r"train\.jsonl:3: .*JSON.*; "),
  "missing score": (
    in_record(lambda record: record["responses"][1]["scores"].pop("helpfulness") and None),
    r"train\.jsonl:3: no score for 'helpfulness'.*; add it or drop the context",
  ),
  "score out of range": (in_record(set_score(9)), r"train\.jsonl:3: 'helpfulness' is 9, outside .*; correct the score"),
  "NaN score": (in_record(set_score(float("nan"))), r"train\.jsonl:3: .*helpfulness.*nan.*; "),
  "score that is no number": (in_record(set_score("good")), r"train\.jsonl:3: .*helpfulness.*good.*; "),
  "empty response": (
    in_record(lambda record: record["responses"][0].update(content=" ")),
    r"train\.jsonl:3: .*response.*; ",
  ),
  "unknown role": (
    in_record(lambda record: record.update(prompt=[{"role": "human", "content": "?"}])),
    r"train\.jsonl:3: unknown role 'human'; the roles are",
  ),
  "one response": (
    in_record(lambda record: record["responses"].pop() and None),
    r"train\.jsonl:3: 1 response.*; a pref",
  ),
  "prompt longer than the row": (
    all_of(in_record(lambda record: set_prompt(record, LONG)), same_run(in_config("data.too_long", "error"))),
    r"train\.jsonl:3: prompt longer than the row: .*; raise it, or set too_long",
  ),
  "instruction longer than the row": (same_run(WORDY), r"train\.jsonl:1: prompt longer than the row: .*; "),
  "missing file": (lambda case: (case.world / "train.jsonl").unlink(), r"train\.jsonl: .*; "),
  "empty file": (
    lambda case: (case.world / "train.jsonl").write_text(""),
    r"train\.jsonl: no records; is the file empty",
  ),
  "record in the held-out file": (
    lambda case: (case.world / "heldout.jsonl").write_text('{"prompt": "?"}\n'),
    r"heldout\.jsonl:1: .*; ",
  ),
  "missing tokenizer": (
    lambda case: shutil.rmtree(case.world / "tokenizer"),
    r"tokenizer .*: cannot be loaded \(no such directory\); give",
  ),
  "tokenizer without a chat template": (
    lambda case: (case.world / "tokenizer" / "chat_template.jinja").unlink(),
    r"tokenizer .*: has no chat template; add",
  ),
  "another tokenizer": (
    lambda case: (case.world / "tokenizer" / "chat_template.jinja").write_text(
      "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    ),
    r"run: was begun with another tokenizer than .*; use that one",
  ),
  "vocabulary smaller than the tokenizer": (
    same_run(in_config("model.arch.vocab_size", 64)),
    r"the tokenizer has \d+ entries, the model's vocabulary 64; use the model's own",
  ),
  "chat template without the variable": (
    same_run(in_config("data.template_kwargs", {"think": 1})),
    r"template_kwargs: its chat template takes no 'think'; leave",
  ),
}


@pytest.mark.parametrize("name", DATA)
def test_a_mistake_in_the_data(case, compiled, capfd, name):
  spoil, message = DATA[name]
  spoil(case)
  assert_refused(case, compiled, capfd, message)


@pytest.fixture(scope="module")
def hf_model(trained, tmp_path_factory):
  out = tmp_path_factory.mktemp("hf") / "model"
  export(str(trained[0]), str(out))
  return out


def remove_shard(model):
  tensors = load_file(model / "model.safetensors")
  names = sorted(tensors)
  shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
  for file, part in shards.items():
    save_file({name: tensors[name] for name in part}, model / file)
  index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
  (model / "model.safetensors.index.json").write_text(json.dumps(index))
  (model / "model.safetensors").unlink()
  (model / "model-00002-of-00002.safetensors").unlink()


def truncate(model):
  path = model / "model.safetensors"
  path.write_bytes(path.read_bytes()[:-100])


def reshape(model):
  tensors = load_file(model / "model.safetensors")
  tensors["model.norm.weight"] = np.ones(7, np.float32)
  save_file(tensors, model / "model.safetensors")


def forget(model):
  tensors = load_file(model / "model.safetensors")
  del tensors["model.norm.weight"]
  save_file(tensors, model / "model.safetensors")


MODEL = {
  "missing shard": (remove_shard, r"model-00002-of-00002\.safetensors.*; "),
  "truncated shard": (truncate, r"model\.safetensors: .*; "),
  "wrong tensor shape": (reshape, r"model\.safetensors: .*model\.norm\.weight.*7.*32.*; "),
  "missing tensor": (forget, r"model\.norm\.weight.*; "),
  "no weights": (
    lambda model: (model / "model.safetensors").unlink(),
    r"neither model\.safetensors nor .*; only safetensors",
  ),
  "no config": (lambda model: (model / "config.json").unlink(), r"config\.json.*; "),
  "broken config": (lambda model: (model / "config.json").write_text("{"), r"config\.json.*; "),
}


@pytest.mark.parametrize("name", MODEL)
def test_a_mistake_in_the_model(case, compiled, capfd, hf_model, tmp_path, name):
  spoil, message = MODEL[name]
  model = shutil.copytree(hf_model, tmp_path / "model")
  spoil(model)
  same_run(in_config("model.path", str(model)), in_config("model.arch", {}))(case)
  assert_refused(case, compiled, capfd, message)


def test_the_same_run_unspoilt_goes_on(case, capfd):
  write_config(case)
  with pytest.raises(SystemExit) as stop:
    main(["amopo", "train", f"--workdir={case.workdir}", f"--config={case.config}"])
  assert stop.value.code == 0
  assert "resumed at step" in capfd.readouterr().out
