#!/usr/bin/env bash
# Install MONAI Label 0.8.5, this package and all they need, into the virtual environment that is active.
set -euo pipefail
cd "$(dirname "$0")/.."

python -m pip install "$@" -r label/requirements.txt -e ".[bundle]"
python -m pip install "$@" --no-deps monailabel==0.8.5

# pydicom-seg 0.4.1 looks for this module, which pydicom 3 no longer has
python - <<'PYTHON'
from pathlib import Path
import pydicom
Path(pydicom.__file__).with_name("_storage_sopclass_uids.py").write_text("from pydicom.uid import SegmentationStorage\n")
PYTHON
