"""``make openapi``: the document on stdout."""

import sys

from agent.endpoints.openapi.document import rendered

sys.stdout.buffer.write(rendered())
