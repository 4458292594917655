"""Group keys that tell nothing of the patient."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

__all__ = ["Pseudonyms"]

_SALT_BYTES = 32


class Pseudonyms:
    """Keys in the place of patient ids: HMAC-SHA256 under a salt, the first 16 hexadecimal digits.

    The same id has the same key under the same salt. A plain hash of an id could be found again by hashing every id
    there is; without the salt this one cannot. Whoever holds the salt can, so it stays where the patients' data are.

    Args:
        salt_file: where the salt is kept; made, for its owner alone to read, where it does not exist. ``None`` draws a
            salt that is never stored: the next run gives other keys.

    Raises:
        ValueError: when the file holds too little for a salt.

    References:
        H. Krawczyk, M. Bellare, R. Canetti: HMAC: Keyed-Hashing for Message Authentication. RFC 2104, 1997.

    Example:
        >>> pseudonym = Pseudonyms()
        >>> pseudonym("MRN 0042") == pseudonym("MRN 0042"), len(pseudonym("MRN 0042"))
        (True, 16)
    """

    def __init__(self, salt_file: str | os.PathLike[str] | None = None) -> None:
        self._salt = secrets.token_bytes(_SALT_BYTES) if salt_file is None else _kept_salt(Path(salt_file))

    def __call__(self, identity: str) -> str:
        """The key of this patient id."""
        return hmac.new(self._salt, identity.encode(), hashlib.sha256).hexdigest()[:16]


def _kept_salt(path: Path) -> bytes:
    if path.exists():
        salt = path.read_bytes()
        if len(salt) < _SALT_BYTES:
            raise ValueError(f"The salt file '{path}' holds {len(salt)} bytes, not at least {_SALT_BYTES}: delete it.")
        return salt
    salt = secrets.token_bytes(_SALT_BYTES)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(salt)
    return salt
