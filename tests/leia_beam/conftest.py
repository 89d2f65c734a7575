"""What the builder's tests share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `golden_wikitext`, whatever import mode pytest runs in
