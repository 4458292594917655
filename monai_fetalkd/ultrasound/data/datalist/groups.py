"""Groups: which frames are of one patient, and keys for them that tell nothing of the patient."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from monai_fetalkd.ultrasound.data.datalist.rows import Row, Source

__all__ = ["Pseudonyms", "one_spelling", "with_groups"]

logger = logging.getLogger(__name__)

_SALT_BYTES = 32


def with_groups(source: Source) -> list[Row]:
    """The rows of a source, each with a group, and each group in one spelling.

    A file that tells nothing of the patient is a group of its own, which is said in the log.
    """
    spelling = one_spelling(row["group"] for row in source.rows if "group" in row)
    variants = len(spelling) - len(set(spelling.values()))
    if variants:
        first, second = _images_of_variants(source.rows, spelling)
        logger.warning(
            "%d patient id(s) of '%s' differ from another one by leading zeros or case alone, such as those of '%s' "
            "and '%s': they are taken for the same patient.",
            variants,
            source.name,
            first,
            second,
        )
    alone = {row["image"] for row in source.rows if "group" not in row}
    if alone:
        logger.warning(
            "%d file(s) of '%s' tell nothing of the patient (looked for in %s): each is a group of its own, and "
            "nothing keeps the frames of a patient in one split.",
            len(alone),
            source.name,
            source.groups_from,
        )
    return [
        row | {"group": spelling[row["group"]] if "group" in row else os.path.relpath(row["image"], source.root)}
        for row in source.rows
    ]


def one_spelling(groups: Iterable[str]) -> dict[str, str]:
    """One spelling for ids that spreadsheets and people write differently: in case, leading zeros or a final ``.0``.

    Args:
        groups: patient ids.

    Returns:
        For each its spelling, the shortest of its variants.

    Example:
        >>> one_spelling(["007", "7", "P12", "p12", "71"])
        {'007': '7', '7': '7', 'P12': 'P12', 'p12': 'P12', '71': '71'}
    """
    variants: dict[str, list[str]] = defaultdict(list)
    for group in dict.fromkeys(groups):
        variants[_spelled_plainly(group)].append(group)
    best = {key: min(spellings, key=lambda group: (len(group), group)) for key, spellings in variants.items()}
    return {group: best[key] for key, spellings in variants.items() for group in spellings}


def _spelled_plainly(group: str) -> str:
    plain = unicodedata.normalize("NFC", group).casefold()
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"^([0-9]+)\.0+$", r"\1", plain))


def _images_of_variants(rows: list[Row], spelling: dict[str, str]) -> tuple[str, str]:
    """An image of each of two groups that are written differently; ids themselves stay out of messages."""
    first = next(row for row in rows if row.get("group") in spelling and spelling[row["group"]] != row["group"])
    second = next(row for row in rows if row.get("group") == spelling[first["group"]])
    return first["image"], second["image"]


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
