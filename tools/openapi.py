"""Write the OpenAPI document of the API to docs/openapi.json, or check that it is current.

Run as `python tools/openapi.py [--check]`. Needs no database: the document follows from the code.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from imageloom.api.app import describe_api

DOCUMENT = Path(__file__).parent.parent / "docs" / "openapi.json"


def main() -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if it is old")
    args = parser.parse_args()
    text = json.dumps(describe_api(), indent=1, ensure_ascii=False) + "\n"
    if not args.check:
        DOCUMENT.write_text(text, "utf-8")
        print(f"wrote {DOCUMENT.relative_to(DOCUMENT.parent.parent)}")
        return 0
    if not DOCUMENT.is_file() or DOCUMENT.read_text("utf-8") != text:
        print("docs/openapi.json is old; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
