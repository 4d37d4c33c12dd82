"""What the name of a file or folder tells: a picture, a text beside pictures, a split, something hidden."""

import re
import sys
import unicodedata
from pathlib import Path

PICTURES = {
    ".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jfif", ".avif", ".jp2", ".tga",
}  # fmt: skip
DOCUMENTS = {".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log"}
DOCUMENT_NAMES = {"readme", "license", "licence", "copying", "authors"}
TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq"}
SYSTEM = {"__macosx", "thumbs.db", "desktop.ini"}
SPLIT_WORD = re.compile(
    r"(?:^|[^a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev|eval(?:uation)?)|(?P<test>test(?:ing)?)|(?P<pred>pred(?:iction)?))"
    r"(?:[ _-]?(?:sets?|data|images?|imgs?|pictures|photos|split))?(?:[ab])?(?![a-z])"
)


def is_hidden(name: str) -> bool:
    """Whether a name is hidden or an operating system's own.

    Returns:
        True for names that begin with a dot, and for such as Thumbs.db.

    Examples:
        >>> is_hidden(".DS_Store"), is_hidden("Thumbs.db"), is_hidden("a.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.casefold() in SYSTEM


def is_picture(path: Path) -> bool:
    """Whether a name ends as a picture's does.

    Returns:
        True for the endings of the formats that are decoded, in any case.

    Examples:
        >>> from pathlib import Path
        >>> is_picture(Path("a.JPG")), is_picture(Path("a.txt"))
        (True, False)
    """
    return path.suffix.lower() in PICTURES


def is_document(path: Path) -> bool:
    """Whether a name is that of a text which people put beside pictures.

    Returns:
        True for endings such as .txt, .md and .pdf, and names such as README, in any case.

    Examples:
        >>> from pathlib import Path
        >>> is_document(Path("README")), is_document(Path("a.jpg"))
        (True, False)
    """
    return path.suffix.lower() in DOCUMENTS or path.stem.casefold() in DOCUMENT_NAMES


def is_table(path: Path) -> bool:
    """Whether a name ends as a table's does.

    Returns:
        True for .csv, .tsv, .jsonl, .parquet and their like.

    Examples:
        >>> from pathlib import Path
        >>> is_table(Path("labels.csv")), is_table(Path("a.jpg"))
        (True, False)
    """
    return path.suffix.lower() in TABLES


def split_word(name: str) -> tuple[str, str]:
    """The split that a folder's name speaks of, and the rest of the name; two empty texts if it speaks of none.

    Returns:
        (split, rest): "train", "val" or "test", and what is left of the name.

    Examples:
        >>> split_word("seg_train"), split_word("testing_set"), split_word("constrained")
        (('train', 'seg'), ('test', ''), ('', ''))
    """
    match = SPLIT_WORD.search(name.casefold())
    if match is None or match.lastgroup is None:
        return "", ""
    rest = re.sub(r"[^a-z]+", " ", SPLIT_WORD.sub(" ", name.casefold(), count=1)).strip()
    return match.lastgroup, rest


def one_name(name: str) -> str:
    """A name in the normal form C of Unicode: macOS may store an accented letter as two code points.

    Returns:
        The text in normal form C.

    Examples:
        >>> len("e\u0301"), len(one_name("e\u0301"))
        (2, 1)
    """
    return unicodedata.normalize("NFC", name)


def not_text(name: str) -> str:
    """Why a name holds bytes that are no text, and what to do; "" for one that is text.

    Returns:
        A sentence, or "".
    """
    if printable(name) == name:
        return ""
    try:
        name.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return "a name that is not UTF-8; rename it"
    return f"a name in UTF-8, and Python takes names for {sys.getfilesystemencoding()} here; set the environment variable PYTHONUTF8=1"


def printable(text: str) -> str:
    """Text that any UTF-8 file takes: bytes of a name that are none stand as escapes.

    Returns:
        A text that encodes to UTF-8.
    """
    return text.encode("utf-8", "backslashreplace").decode()
