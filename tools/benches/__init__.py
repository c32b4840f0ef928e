"""The benches of tools/bench.py, one file each; a file whose name begins with _ is no bench but help for some.

A bench has

    HELP                    one line
    add_options(command)    its own options of the command line (--rounds and --threads are there already)
    cases(options)          a list of dicts that JSON can hold, in the order in which a round runs them
    run(case)               the figures of one case as a dict; called in a process of its own
    BEST                    optional: (figure, "min" or "max"), what the best round is; else ("seconds", "min")

and imports Paddle and plsc inside of ``run`` only. ``case["threads"]`` is set for every case.
"""
