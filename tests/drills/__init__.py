"""What of the drills is pure: the figures that they make of what they saw."""

from __future__ import annotations

import sys
from pathlib import Path

# The drills are scripts: they find each other in their own directory.
sys.path.append(str(Path(__file__).parents[2] / "scripts" / "drills"))
