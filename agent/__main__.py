"""Entry point of ``plexodus-agent``."""

from agent.cli import cli
from shared.program.command_line import run


def main() -> None:
    """Run the command line; exit with a published code."""
    run(cli, program="plexodus-agent")


if __name__ == "__main__":
    main()
