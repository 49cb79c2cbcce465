"""`python -m gemd.cli`: the same as `gemctl`."""

from gemd.cli.app import main

main()
