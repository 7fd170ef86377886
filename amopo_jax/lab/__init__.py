"""The lab: a synthetic world with ground truth, in which everything else can be tried on a laptop.

tasks.py states the questions, graders.py grades responses, responders.py writes them, world.py makes preference
records of both, summary.py counts what is in them, tokenizer.py spells them, write.py puts it all into files.

Studies: methods.py and studies.py say what is compared, jobs.py what that takes, pool.py does it in processes, work.py
is what they do; statistics.py, pareto.py, tables.py, figures.py and report.py are the report, run_study.py all of it.
"""
