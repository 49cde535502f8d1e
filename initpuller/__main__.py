"""Entry point of ``plexodus-puller``."""

from initpuller.cli import cli
from initpuller.report.termination import last_word
from shared.commandline import run
from shared.pairing import PAIRING_VARIABLE


def main() -> None:
    """Run the command line; exit with a published code."""
    run(
        cli,
        program="plexodus-puller",
        extra_variables=(PAIRING_VARIABLE,),
        last_word=last_word,
    )


if __name__ == "__main__":
    main()
