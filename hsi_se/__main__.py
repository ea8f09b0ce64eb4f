"""`python -m hsi_se` is `hsi-se`."""

from hsi_se.cli.main import main

main()
