"""The command line `plsc`: one module per command, found by the table in plsc.cli.main.

A module has a docstring (its --help), `add_options(parser)` and `run(options)`, which returns the exit status or None
for 0. Slow imports are in `run`, so that --help and a wrong option do not need Paddle.
"""
