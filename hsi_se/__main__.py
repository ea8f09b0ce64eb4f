"""`hsi-se`, and `python -m hsi_se`: the command line without the warnings of other libraries."""

import logging
import sys
import warnings

from hsi_se.cli.main import main


def run() -> None:
    """Runs the command line; `python -W default -m hsi_se` shows the warnings of other libraries."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())  # or Python would print what libraries log
    main()


if __name__ == "__main__":
    run()
