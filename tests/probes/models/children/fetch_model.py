"""A process that fetches the model named in argv; JSON lines: progress, then how it ended."""

import json
import sys

from driftscope_probes.errors import ProbeError
from driftscope_probes.models.fetch import fetch

try:
    model = fetch(sys.argv[1], progress=lambda step: print(json.dumps(step.to_dict())))
except ProbeError as error:
    print(json.dumps({"error": error.to_dict()}))
    sys.exit(1)
print(json.dumps({"path": str(model.path), "model": model.to_dict()}))
