"""Packages that only some of the work needs, and how to install those that are missing."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["pip_install", "require"]

# modules that come in a distribution of another name
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "gdcm": "python-gdcm",
    "ignite": "pytorch-ignite",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def pip_install(*modules: str) -> str:
    """The command that installs modules.

    It names plain packages and no extra of this one, which would bring torch to a device that does without.

    Args:
        modules: their names, as they are imported.

    Returns:
        The command.

    Example:
        >>> pip_install("pydicom", "gdcm")
        'pip install pydicom python-gdcm'
    """
    packages = [module.partition(".")[0] for module in modules]
    return f"pip install {' '.join(_DISTRIBUTIONS.get(package, package) for package in packages)}"


def require(purpose: str, *modules: str) -> None:
    """Check that modules are installed.

    Args:
        purpose: what they are needed for, as the message begins: "To find duplicates".
        modules: their names, as they are imported.

    Raises:
        ImportError: when one is missing.

    Example:
        >>> require("To show how", "json", "a_module_of_the_future")
        Traceback (most recent call last):
        ...
        ImportError: To show how, run `pip install a_module_of_the_future`.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ImportError(f"{purpose}, run `{pip_install(*missing)}`.")
