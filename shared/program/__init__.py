"""Command line, environment variables, logs and exit codes of both programs."""
