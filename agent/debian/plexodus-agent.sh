#!/bin/sh
# -I: neither the environment nor the current folder can bring other code in.
exec /opt/plexodus/bin/python3 -I -m agent "$@"
