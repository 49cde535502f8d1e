"""What both programs share around their commands: logs, exit codes, variables."""
