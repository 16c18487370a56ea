"""Compare plans: the same budget on common seeds, with a statistical test of whether one is better.

`design` lists the runs, `trials` trains one of them, `workers` all in parallel; `results` evaluates them with the pure
functions of `statistics`; `sentences`, `table` and `figure` present the results, and `output` writes them to files.
"""
