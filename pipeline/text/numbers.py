"""Numbers as words.

Knows num2words and how English says years, amounts and digits. Invariant: what is returned holds no
digit, except in a language that num2words does not know (`knows` tells).
"""

from decimal import Decimal

from num2words import CONVERTER_CLASSES, num2words

DIGITS_MAX = 15
"a longer run of digits is a code, read digit by digit"
_BROKEN = frozenset({"am"})
"num2words 0.5.14 hangs on Amharic numbers of nine digits"
_YEARS = range(1100, 2100)


def converter(language: str) -> str | None:
    """What num2words calls a BCP 47 language; None if it does not know it."""
    primary, _, region = language.partition("-")
    primary = {"nb": "no", "nn": "no"}.get(primary.lower(), primary.lower())
    for name in (f"{primary}_{region.upper()}", primary):
        if name in CONVERTER_CLASSES and primary not in _BROKEN:
            return name
    return None


def knows(language: str) -> bool:
    """Whether numbers can be written out in this language."""
    return converter(language) is not None


def cardinal(number: int) -> str:
    """English, without “and”: 1205 is one thousand two hundred five."""
    return str(num2words(number)).replace(" and ", " ").replace(",", "")


def ordinal(number: int) -> str:
    """English: 21 is twenty-first."""
    return str(num2words(number, to="ordinal")).replace(" and ", " ").replace(",", "")


def digit_by_digit(digits: str) -> str:
    """English: 007 is zero zero seven."""
    return " ".join(cardinal(int(digit)) for digit in digits)


def whole(digits: str) -> str:
    """English, of a number written without separators: a year or a code if it looks like one."""
    number = int(digits) if len(digits) <= DIGITS_MAX else None
    if number is None or (len(digits) > 1 and digits[0] == "0"):
        return digit_by_digit(digits)
    return year(number) if number in _YEARS else cardinal(number)


def year(number: int) -> str:
    """English: 1905 is nineteen oh five, 2005 two thousand five, 2024 twenty twenty-four."""
    hundreds, rest = divmod(number, 100)
    if hundreds % 10 == 0 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(hundreds)} hundred"
    return f"{cardinal(hundreds)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def decimal(written: str) -> str:
    """English, of digits with an optional point and thousands commas: 3.14 is three point one four."""
    before, _, after = written.replace(",", "").partition(".")
    first = digit_by_digit(before) if len(before) > DIGITS_MAX else cardinal(int(before or "0"))
    return f"{first} point {digit_by_digit(after)}" if after else first


def in_language(number: Decimal, language: str) -> str:
    """A number in any language that num2words knows; ValueError if it cannot say this number."""
    value = int(number) if number == number.to_integral_value() else number
    try:
        return str(num2words(value, lang=converter(language)))
    except (NotImplementedError, OverflowError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no words for {number} in {language}") from error
