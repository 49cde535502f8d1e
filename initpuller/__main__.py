"""Entry point of ``plexodus-puller``."""

from initpuller.cli import cli
from initpuller.cluster.termination import last_word
from shared.program.command_line import run
from shared.wire.pairing import PAIRING_VARIABLE


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
