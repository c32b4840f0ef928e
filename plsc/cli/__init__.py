"""The command line `plsc`: one module per command, found by the table in plsc.cli.main.

A module has a docstring (its --help), `add_options(parser)` and `run(options)`, which returns the status or None for 0.
It imports at its top only what is quick; what computes is imported in `run`, so that --help and a wrong option need no
Paddle.
"""
