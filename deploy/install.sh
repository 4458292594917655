#!/usr/bin/env bash
# The environment of deploy/, in the folder given: the App SDK and MONAI on the CPU, without CUDA itself. About 1.6 GB.
#   bash deploy/install.sh .venv-deploy
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv "$1"
# torch first, and pinned: an open range would bring gigabytes of CUDA libraries
"$1/bin/pip" install -c constraints.txt torch monai pytorch-ignite pydicom nibabel pillow fire pytest
"$1/bin/pip" install -r deploy/requirements.txt
