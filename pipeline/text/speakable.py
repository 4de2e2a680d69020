"""What counts as something that can be spoken.

One question, asked by every module of this room: "* * *", a lone dash or an emoji say nothing, one
letter or digit in any script does.
"""

import re

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def is_speakable(text: str) -> bool:
    """Whether there is a letter or digit in it."""
    return _LETTER_OR_DIGIT.search(text) is not None
