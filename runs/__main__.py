"""`python -m orderbench.runs` is `bench run`, for launchers such as torchrun that start a module."""

import sys

from orderbench.runs.cli import main

sys.argv[1:1] = ["run"]
main()
