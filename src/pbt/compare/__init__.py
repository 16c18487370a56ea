"""Plans against each other: the same budget on common seeds, and an honest answer to whether one is better.

`design` says what is trained, `trials` trains one run, `pool` all of them in parallel, `statistics` is pure, `results`
puts them together, `sentences` says it in words, `figure` draws it, `written` makes files of it.
"""
