"""Where figures come from: data, seed, versions, commit and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai_fetalkd import __version__
from monai_fetalkd.ultrasound.data.datalist import Datalist
from monai_fetalkd.ultrasound.data.datalist.rows import UNLABELLED
from monai_fetalkd.utils.hashing import hash_of_data

__all__ = ["git_commit", "hash_of_datalist", "provenance"]

_DISTRIBUTIONS = ("torch", "monai", "pytorch-ignite", "numpy", "scikit-learn")


def provenance(datalist: Datalist, seed: int, **settings: Any) -> dict[str, Any]:
    """What somebody needs to know, beside figures, to find out where they came from and to make them again.

    Args:
        datalist: the frames.
        seed: seed of the run.
        settings: whatever else belongs there.

    Returns:
        Plain values: ``seed``, ``dataset``, ``data_hash``, the settings, versions, ``git_commit`` where the package is
        a checkout, ``machine`` and ``command``.

    Example:
        >>> frame = {"image": "a.png", "label": 0, "group": "p1"}
        >>> about = provenance(Datalist("planes.json", ["brain", "other"], {"testing": [frame]}), seed=3)
        >>> about["seed"], about["dataset"], len(about["data_hash"])
        (3, 'planes.json', 64)
    """
    commit = git_commit(Path(__file__).parent)
    return {
        "seed": seed,
        "dataset": os.fspath(datalist.path),
        "data_hash": hash_of_datalist(datalist),
        **settings,
        "monai_fetalkd": __version__,
        **({"git_commit": commit} if commit else {}),
        "python": platform.python_version(),
        **{name: version(name) for name in _DISTRIBUTIONS},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": shlex.join(sys.orig_argv),
    }


def hash_of_datalist(datalist: Datalist) -> str:
    """Hash which frames are in which section under which label, wherever their folder is.

    Args:
        datalist: the frames.

    Returns:
        A SHA-256 of the class table and, for each section and the unlabelled frames, of every frame's label, file name,
        number in its file and size of its file. Groups are left out: their pseudonyms differ from run to run.
    """
    sections = datalist.sections | ({UNLABELLED: datalist.unlabelled} if datalist.unlabelled else {})
    return hash_of_data(
        {
            "class_names": list(datalist.class_names),
            "sections": {
                name: sorted(
                    (row.get("label", -1), Path(row["image"]).name.encode(), row.get("frame", -1), _size(row["image"]))
                    for row in rows
                )
                for name, rows in sections.items()
            },
        }
    )


def git_commit(folder: str | os.PathLike[str]) -> str | None:
    """The commit of a checkout.

    Args:
        folder: a folder right below the top of the checkout.

    Returns:
        The hash, followed by ``" with changes"`` where tracked files differ from it; None where there is no checkout,
        or no git.
    """
    top = Path(folder).parent
    if not (top / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(top), *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} with changes" if changes else commit


def _size(path: str) -> int:
    return os.stat(path).st_size if os.path.exists(path) else -1
