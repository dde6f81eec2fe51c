"""`python -m launcher` is `fcn-launch`."""

from launcher.cli.main import main

main()
