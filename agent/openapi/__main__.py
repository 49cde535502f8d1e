"""``make openapi``: the document on stdout."""

import sys

from agent.openapi.document import rendered

sys.stdout.buffer.write(rendered())
