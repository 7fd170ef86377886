import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def prompts(world, tmp_path):
  path = tmp_path / "prompts.jsonl"
  path.write_text("".join((world / "heldout.jsonl").read_text().splitlines(keepends=True)[:2]))
  return path


def test_a_workdir_brings_contexts_and_tokenizer(amopo, trained, prompts, tmp_path):
  out = tmp_path / "out.jsonl"
  arguments = (f"--model={trained[0]}", f"--data={prompts}", f"--out={out}", "--max_new=4", "--contexts=correctness")
  status, text, err = amopo("generate", *arguments, "--num_samples=2", "--temperature=0.8", "--top_p=0.9")
  assert (status, err) == (0, "")
  lines = [json.loads(line) for line in out.read_text().splitlines()]
  assert [line["sample"] for line in lines] == [0, 1, 0, 1]
  assert {line["context"] for line in lines} == {"correctness"}
  assert "4 of 4 responses" in text
  assert text.endswith(f"{out}: 4 lines\n")


def test_replicas_answer_as_one_device_group_does(amopo, trained, prompts, tmp_path):
  arguments = (f"--model={trained[0]}", f"--data={prompts}", "--max_new=4", "--contexts=correctness")
  for name, others in {"one": (), "two": ("--replicas=2",), "all": ("--replicas=-1",)}.items():
    status, _, err = amopo("generate", *arguments, f"--out={tmp_path}/{name}", *others)
    assert (status, err) == (0, "")
  read = lambda name: [json.loads(line)["response"] for line in (tmp_path / name).read_text().splitlines()]
  assert read("one") == read("two") == read("all")
  status, _, err = amopo("generate", *arguments, f"--out={tmp_path}/five", "--replicas=5")
  assert status == 2
  assert "config.mesh" in err
  status, _, err = amopo("generate", *arguments, f"--out={tmp_path}/none", "--replicas=0")
  assert (status, err) == (2, "amopo generate: --replicas: 0 is neither -1 nor at least 1\n")


def test_replicas_are_cores_of_a_cpu(trained, prompts, tmp_path):
  arguments = [f"--model={trained[0]}", f"--data={prompts}", f"--out={tmp_path}/out", "--max_new=4", "--replicas=3"]
  told = "import jax, sys; from amopo_jax.cli.main import main\ntry: main(['amopo', *sys.argv[1:]])\n"
  told += "finally: print(jax.device_count(), 'devices')"
  clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  found = subprocess.run(
    [sys.executable, "-c", told, "generate", *arguments],
    env={**clean, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert found.stdout.endswith("3 devices\n"), found.stderr
  assert len((tmp_path / "out").read_text().splitlines()) == 4


def test_a_mistake_is_one_line(amopo, trained, prompts, tmp_path):
  out = f"--out={tmp_path}/out.jsonl"
  status, _, err = amopo("generate", f"--model={trained[0]}", f"--data={prompts}", out, "--top_p=2")
  assert (status, err) == (2, "amopo generate: --top_p: 2 is not in (0, 1]\n")
  status, _, err = amopo("generate", f"--model={trained[0]}", out)
  assert status == 2
  assert "--data" in err
