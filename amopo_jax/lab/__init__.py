"""The lab: a synthetic world with ground truth, in which everything else can be tried on a laptop.

tasks.py states the questions, graders.py grades responses, responders.py writes them, world.py makes preference
records of both, summary.py counts what is in them, tokenizer.py spells them, write.py puts it all into files.
"""
