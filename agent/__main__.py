"""Entry point of ``plexodus-agent``."""

from agent.cli import cli
from shared.commandline import run


def main() -> None:
    """Run the command line; exit with a published code."""
    run(cli, program="plexodus-agent")


if __name__ == "__main__":
    main()
