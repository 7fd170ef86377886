"""One train step, forward, backward and AdamW, of this project and its peers on the same pairs and weights.

    python -m benchmarks.step --shape=small --lengths=issue --place=after --rounds=5 --json=step.json
    python -m benchmarks.step --shape=qwen2.5-0.5b-4l --contenders=ours,released,clean_packed
    python -m benchmarks.step --contenders=ours --variant=model.remat=full --variant=model.remat=none,model.unroll=8

Each contender is a child process (`benchmarks/peers/`), a peer in an environment of its own, which the first run
installs under `--cache` from `benchmarks/peers/requirements-*.txt`. First every contender makes two steps alone:
their losses are compared (`equality`) and their peak memory is noted. Then come the paired rounds (`rounds`), in
which the plain matrix products of XLA and of torch take turns too: rates are shares of the faster one, measured in
the same minutes. With `--turns=auto` contenders stay alive between their turns if the memory of all fits at once,
else every turn is a process that warms up for one step; eight rows of 150,000-word logits take 16 GB, so that a
peer that keeps them cannot hold every pair of UltraFeedback: --longest leaves out those with longer rows.

s/pair is the median over the rounds; spread is (slowest − fastest) / median. Operations are counted by `flops`:
GFLOP/s without what is recomputed, then with it. Tokens are those of the 2K sequences, unshared and unpadded. The
last lines are medians of the ratio to ours within a round. On a CPU ours runs with the keys that docs/numerics.md
gives for where memory is no matter (FAST), on top of configs/base.py; --override comes after them. On a GPU parameters,
moments and products are bfloat16, and the default shape has all 24 layers. An LD_PRELOAD is everybody's: on a CPU,
`LD_PRELOAD=libtcmalloc_minimal.so.4 TCMALLOC_RELEASE_RATE=0` spares XLA and torch the system's clean pages.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.batches import LENGTHS, ULTRAFEEDBACK, Lengths, lengths_of, read_lengths, sample
from benchmarks.contenders import CONTENDERS, PEAKS, Contender, Worker
from benchmarks.equality import Verdict, compare
from benchmarks.flops import step_flops
from benchmarks.jobs import write_job
from benchmarks.peers.serve import Job
from benchmarks.rounds import Check, check_all, fit_together, timed_rounds
from benchmarks.shapes import SHAPES

PLACES = ("before", "after")
FAST = {
  "cpu": ("model.remat=dots", "model.head_keep=1.3", "model.head_chunk=2048"),
  "gpu": ("model.remat=dots", "model.head_chunk=4096", "model.unroll=24"),
}
SHAPE = {"cpu": "small", "gpu": "qwen2.5-0.5b"}


def main() -> None:
  args = arguments()
  with tempfile.TemporaryDirectory() as folder:
    options = {"row_length": args.row_length, "overrides": [*FAST[args.device], *args.override]}
    fields, lengths = SHAPES[args.shape], _lengths(args)
    job = write_job(Path(folder), fields, lengths, place=args.place, device=args.device, options=options)
    content = measure(args, job)
  if args.json:
    report.write(args.json, content)
  if unequal := [name for name, verdict in content["equality"].items() if not verdict["is_equal"]]:
    sys.exit(f"not shown to compute the same: {', '.join(unequal)}; their times mean nothing")


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  names = lambda text: text.split(",")
  parser.add_argument("--contenders", type=names, default=list(CONTENDERS), help=f"of {', '.join(CONTENDERS)}")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--shape", choices=SHAPES, help="small, on a GPU qwen2.5-0.5b")
  parser.add_argument("--lengths", choices=LENGTHS, default="issue")
  parser.add_argument("--pairs", type=int, default=0, help="in the batch; 0: one, of ultrafeedback eight")
  parser.add_argument("--data", help="file of prompt, chosen, rejected to take the lengths of ultrafeedback from")
  parser.add_argument("--tokenizer", help="of --data")
  parser.add_argument("--longest", type=int, default=0, help="leaves out pairs of ultrafeedback over so many tokens")
  parser.add_argument("--place", choices=PLACES, default="after", help="of the instruction")
  parser.add_argument("--row-length", type=int, default=0, help="of our rows; 0: see peers/ours.py")
  parser.add_argument("--override", action="append", default=[], metavar="A.B=V", help="of our config, after FAST")
  parser.add_argument(
    "--variant",
    action="append",
    default=[],
    metavar="A.B=V,…",
    help="ours once more, also with these keys, and flags of XLA such as --variant=--xla_cpu_multi_thread_eigen=false",
  )
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--turns", choices=("auto", "alive", "fresh"), default="auto", help="whether children stay")
  parser.add_argument("--timeout", type=float, default=1800, help="seconds that an answer may take")
  parser.add_argument("--cache", default="~/.cache/amopo_jax/peers", help="folder of the peers' environments")
  parser.add_argument("--json", metavar="FILE")
  args = parser.parse_args()
  unknown = sorted(set(args.contenders) - set(CONTENDERS))
  if unknown:
    parser.error(f"unknown contenders {', '.join(unknown)}; choose of {', '.join(CONTENDERS)}")
  if args.data and not args.tokenizer:
    parser.error("--data needs --tokenizer, which its texts are counted in")
  args.shape = args.shape or SHAPE[args.device]
  return args


def measure(args: argparse.Namespace, job: Job) -> dict[str, Any]:
  """Checks, times and prints; returns the content of the file."""
  chosen = {name: CONTENDERS[name] for name in args.contenders} | variants(args.variant, job)
  cache = Path(args.cache)
  start = lambda contender: Worker(contender, job, cache=cache, timeout=args.timeout)
  checks, failures = check_all({**PEAKS, **chosen}, start, say)
  trained = {name: check for name, check in checks.items() if name not in PEAKS}
  verdicts = compare(chosen, trained, job)
  print(equality_table(chosen, verdicts))
  fits = args.device == "cpu" and fit_together(checks, free_bytes())  # an accelerator's memory goes to one at a time
  together = {"alive": True, "fresh": False}.get(args.turns, fits)
  able = {name: contender for name, contender in {**PEAKS, **chosen}.items() if name in checks}
  answers, failed = timed_rounds(able, start, say, rounds=args.rounds, together=together)
  content = figures(args, job, answers, checks)
  failures |= failed
  print(report.step_table({name: who.label for name, who in chosen.items()}, content["contenders"], failures))
  print("\n".join(_last_lines(content, chosen)))
  content |= {"equality": {name: verdict._asdict() for name, verdict in verdicts.items()}, "failures": failures}
  return content | {"turns": "alive" if together else "fresh"}


def variants(texts: Sequence[str], job: Job) -> dict[str, Contender]:
  """Ours under other keys, each `a.b=v,c.d=w`, and flags of XLA, as further contenders."""
  found = {}
  for text in texts:
    flags = [part for part in text.split(",") if part.startswith("--")]
    overrides = [*job.options["overrides"], *(part for part in text.split(",") if part not in flags)]
    options = {**CONTENDERS["ours"].options, "overrides": overrides}
    found[text] = Contender(f"ours, {text}", "ours", options=options, xla_flags=" ".join(flags))
  return found


def figures(
  args: argparse.Namespace, job: Job, answers: dict[str, list[dict[str, Any]]], checks: dict[str, Check]
) -> dict[str, Any]:
  """All that was measured, by contender."""
  sequences, fields = job.pairs.sequences, SHAPES[args.shape]
  seconds = lambda name: [answer["seconds"] for answer in answers[name]]
  peaks = {name: float(np.median([answer["loss"] for answer in answers[name]])) for name in PEAKS if answers.get(name)}
  found = {
    name: report.rates(
      seconds(name),
      step_flops(fields, checks[name].counts),
      pairs=job.pairs.shape[0],
      tokens=sum(len(prompt) + len(response) for prompt, response in sequences),
      peak_bytes=checks[name].peak_bytes,
      peaks=peaks,
    )
    | {"counts": checks[name].counts._asdict()}
    for name in answers
    if name not in PEAKS and answers[name]
  }
  settings = {name: value for name, value in vars(args).items() if name not in ("json", "cache", "data", "tokenizer")}
  settings["allocator"] = os.environ.get("LD_PRELOAD", "")
  times = report.ratios({name: answers[name] for name in found}, "ours")
  return {"settings": settings, "dtype": job.dtype, "peaks": peaks, "contenders": found, "times_ours": times}


def equality_table(contenders: dict[str, Contender], verdicts: dict[str, Verdict]) -> str:
  """Loss by loss, with a word on each."""
  lines = [("contender", "loss", "first", "expected", "second", "expected", "gradient", "expected", "equal")]
  for name, verdict in verdicts.items():
    losses = verdict.losses
    cells = (losses[0], verdict.expected, losses[1], verdict.expected_next, *verdict.grad_norms)
    shown = ("?" if np.isnan(value) else f"{value:.6f}" for value in cells)
    lines.append((contenders[name].label, contenders[name].loss, *shown, verdict.word))
  return report.align(lines)


def free_bytes() -> int:
  """Memory that is free for use on this machine."""
  info = Path("/proc/meminfo")
  if not info.exists():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
  line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable:"))
  return int(line.split()[1]) * 1024


def say(text: str) -> None:
  """Progress, beside the result."""
  print(text, file=sys.stderr, flush=True)


def _lengths(args: argparse.Namespace) -> list[Lengths]:
  count = args.pairs or (8 if args.lengths == "ultrafeedback" else 1)
  if args.lengths != "ultrafeedback":
    return lengths_of(args.lengths, count)
  table = read_lengths(Path(args.data), args.tokenizer) if args.data else ULTRAFEEDBACK
  return sample(table, count, args.longest)


def _last_lines(content: dict[str, Any], chosen: Mapping[str, Contender]) -> list[str]:
  labels = {name: chosen[name].label for name in content["times_ours"]}
  peaks = [f"{PEAKS[name].label}: {peak / 1e9:.0f} GFLOP/s" for name, peak in content["peaks"].items()]
  return peaks + [f"{labels[name]}: {times:.2f} times ours" for name, times in content["times_ours"].items()]


if __name__ == "__main__":
  main()
