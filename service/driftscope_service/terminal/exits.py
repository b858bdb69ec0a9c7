"""Exit codes. One rule for every command, so that a script can tell a finding from a failure.

Apart from the options of `commands`, so that a command that starts quickly need not load those.
"""

from __future__ import annotations

from typing import Final

#: What was looked for is there: a rule of --fail-on holds, a verdict is not as expected, a kernel
#: is refuted, a setting is known to go wrong. 0: done, and nothing to say.
FOUND: Final = 1
#: Wrong usage, or it could not be carried out.
COULD_NOT_RUN: Final = 2
