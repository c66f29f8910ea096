"""What can be wrong with a slide file, in words a laboratory technician understands."""

from enum import StrEnum
from typing import Any


class RefusalCode(StrEnum):
    """Why a file does not become a slide. The code is stable; the message carries the particulars."""

    NOT_A_SLIDE = "not_a_slide"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    UNSUPPORTED_FORMAT = "unsupported_format"
    INCOMPLETE = "incomplete"
    NOT_BRIGHTFIELD = "not_brightfield"
    SIXTEEN_BIT = "sixteen_bit"
    TOO_LARGE = "too_large"
    DAMAGED_STRUCTURE = "damaged_structure"
    UNREADABLE = "unreadable"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    OUT_OF_MEMORY = "out_of_memory"
    NO_SPACE = "no_space"
    BAD_ARCHIVE = "bad_archive"


class WsiError(Exception):
    """Any failure of this package."""


class SlideRefused(WsiError):
    """The file cannot be used as a slide. `code` for programs, `message` for people."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message), self.__dict__


class NoScale(WsiError):
    """Micrometres were asked of a slide whose pixel size is unknown."""


class TileStoreDamaged(WsiError):
    """The tile store on disk cannot be used; the slide must be prepared again."""


class SourceChanged(TileStoreDamaged):
    """The slide file under a pass-through tile store is gone or is not the file that was indexed."""
