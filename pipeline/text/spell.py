"""Writes out what is read differently from how it is spelled: numbers, money, times, abbreviations.

Knows English well and the plain numbers of other languages; nothing of engines. Invariant: spelling out
twice changes nothing more, and sentences still end where they did. An engine that is given this form says
what `spoken_words` lists, whatever its own idea of “$200” or “1999”.
"""

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from pipeline.text import numbers
from pipeline.text.english import (
    ANYWHERE,
    BEFORE_NAME,
    BEFORE_NUMBER,
    CURRENCIES,
    MONTHS,
    NEVER_LAST,
    RULERS,
    SCALES,
    STARTERS,
    SYMBOLS,
    UNITS,
)

_Match = re.Match[str]
_Rule = tuple[re.Pattern[str], str | Callable[[_Match], str]]

_PASSES_MAX = 4
"one rule may uncover what another looks for; two passes are the rule"
_DIGIT_LOOKALIKE = re.compile(r"[^\x00-\x7f]")
_ROMAN = re.compile(r"(?=[IVXLC])(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def spell_out(text: str, language: str) -> str:
    """`text` as it is read aloud, in letters. `language` is a BCP 47 tag.

    “$200 on 5th St.” gives “two hundred dollars on fifth Street.”, a lone “IV” is the heading “Four.”.
    """
    text = _plain_digits(text)
    if language.split("-")[0].lower() == "en":
        return _english(text)
    return _other(text, language) if numbers.knows(language) else text


def _plain_digits(text: str) -> str:
    """Superscripts, fractions, full-width and Arabic-Indic digits as plain ones."""

    def plain(match: _Match) -> str:
        decomposed = unicodedata.normalize("NFKC", match[0])
        digits = "".join(str(unicodedata.decimal(c, c)) for c in decomposed).replace("\u2044", "/")
        if digits == match[0] or not any("0" <= c <= "9" for c in digits):
            return match[0]
        return digits if unicodedata.decimal(match[0], None) is not None else f" {digits} "

    return text if text.isascii() else _DIGIT_LOOKALIKE.sub(plain, text)


def _other(text: str, language: str) -> str:
    """Numbers of a language other than English; decimal commas where that language has them."""
    comma = language.split("-")[0].lower() not in ("he", "ja", "ko", "th")
    group, point = (r"[. \u202f]", ",") if comma else (",", r"\.")
    pattern = re.compile(rf"(?<![\d.,])\d{{1,3}}(?:{group}\d{{3}})+(?:{point}\d+)?(?![\d])|\d+(?:[.,]\d+)?")

    def words(match: _Match) -> str:
        return _padded(match, _in_language(match[0], language, comma=comma))

    return pattern.sub(words, text)


def _in_language(written: str, language: str, *, comma: bool) -> str:
    if re.fullmatch(r"\d{1,3}(?:[., \u202f]\d{3})+", written) and ("," not in written or not comma):
        written = re.sub(r"\D", "", written)
    plain = re.sub(r"[. \u202f](?=\d{3}\b)" if comma else ",", "", written).replace(",", ".")
    try:
        if len(plain) > numbers.DIGITS_MAX:
            return " ".join(numbers.in_language(Decimal(c), language) for c in plain if c.isdigit())
        return numbers.in_language(Decimal(plain), language)
    except (ValueError, InvalidOperation):
        return written


def _padded(match: _Match, words: str) -> str:
    """`words` set off from letters and digits that touch the match."""
    text, (start, end) = match.string, match.span()
    before = " " if start and text[start - 1].isalnum() and match[0][0] != " " else ""
    after = " " if end < len(text) and text[end].isalnum() and match[0][-1] != " " else ""
    return before + words + after


def _english(text: str) -> str:
    for _ in range(_PASSES_MAX):
        before = text
        if heading := _heading(text):
            return heading
        for pattern, write in _RULES:
            text = pattern.sub(write, text)
        if text == before:
            break
    return text.strip()


def _heading(text: str) -> str | None:
    """“Four.” for a lone “IV”, which is the number of a chapter."""
    numeral = re.fullmatch(r"\s*([IVX]|[IVXLC]{2,})\.?\s*", text)
    value = _roman_value(numeral[1]) if numeral else None
    return numbers.cardinal(value).capitalize() + "." if value else None


def _roman_value(letters: str) -> int | None:
    """1 to 99, or None if the letters are no well-formed Roman numeral."""
    if not _ROMAN.fullmatch(letters):
        return None
    values = [_ROMAN_VALUES[letter] for letter in letters]
    pairs = zip(values, [*values[1:], 0], strict=True)
    return sum(-value if value < following else value for value, following in pairs)


def _abbreviation(match: _Match) -> str:
    """An abbreviation that may end a sentence keeps its stop there."""
    short = match[1]
    full = ANYWHERE[short.lower()]
    if short[0].isupper():
        full = full[0].upper() + full[1:]
    if short.lower() in NEVER_LAST:
        return full
    following = re.match(r"\s+([^\W\d_]+)|[,;:)]|\s*[^\w\s]*\Z|[”\"]", match.string[match.end() :][:40])
    if following is None or following[0].startswith((",", ";", ":", ")")):
        return full
    word = following[1]
    return full if word and word not in STARTERS else full + "."


def _street(match: _Match) -> str:
    following = re.match(r" ([A-Z]\w+)", match.string[match.end() :][:40])
    if following and following[1] not in STARTERS:
        return match[0]
    ends = following is not None or not match.string[match.end() :].strip()
    return f"{match[1]} Street" + ("." if ends else "")


def _time(match: _Match) -> str:
    hour, minute, second = int(match[1]), int(match[2]), match[3]
    said = numbers.cardinal(hour)
    if minute or second:
        said += f" {'oh ' if 0 < minute < 10 else ''}{numbers.cardinal(minute)}"
    elif not match[4]:
        said += " o'clock" if 0 < hour <= 12 else " hundred"
    if second:
        said += f" and {_counted(int(second), 'second', 'seconds')}"
    return said + (f" {match[4][0].lower()}.m." if match[4] else "")


def _counted(number: int, one: str, many: str) -> str:
    return f"{numbers.cardinal(number)} {one if number == 1 else many}"


def _iso_date(match: _Match) -> str:
    year, month, day = (int(part) for part in match.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{MONTHS[month - 1]} {numbers.ordinal(day)}, {numbers.whole(str(year).zfill(4))}"


def _money(match: _Match) -> str:
    sign, amount, cents, scale = match["sign"], match["whole"].replace(",", ""), match["part"], match["scale"]
    one, many, cent, cents_name = CURRENCIES[sign.lstrip("USACN")]
    if scale:
        full = numbers.decimal(f"{amount}.{cents}" if cents else amount)
        return _padded(match, f"{full} {SCALES.get(scale.strip().lower(), scale.strip().lower())} {many}")
    if cents and (len(cents) != 2 or not cent):
        return _padded(match, f"{numbers.decimal(f'{amount}.{cents}')} {many}")
    dollars = numbers.decimal(amount)
    said = f"{dollars} {one if dollars == 'one' else many}"
    if not cents or not int(cents):
        return _padded(match, said)
    small = _counted(int(cents), cent, cents_name)
    return _padded(match, small if dollars == "zero" else f"{said} and {small}")


def _unit(match: _Match) -> str:
    one, many = UNITS[match[2]]
    return f"{match[1]} {one if match[1] == '1' else many}"


def _decade(match: _Match) -> str:
    century, tens = match[1], int(match[2])
    if not century:
        return _padded(match, _plural(numbers.cardinal(tens)))
    return _padded(match, _plural(numbers.year(int(century) * 100 + tens)))


def _plural(words: str) -> str:
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _fraction(match: _Match) -> str:
    above, below = int(match[2]), int(match[3])
    if not 0 < above < below or below > 10:
        return f"{match[1] or ''}{match[2]} {match[3]}"
    part = {2: "half", 4: "quarter"}.get(below) or numbers.ordinal(below)
    said = f"{numbers.cardinal(above)} {part if above == 1 else _plural(part)}"
    return f"{match[1]}and {said} " if match[1] else f"{said}"


def _range(match: _Match) -> str:
    first, dash, last = match.groups()
    is_phone = (len(first), len(last)) == (3, 4)
    is_range = dash != "-" or (len(last) <= 4 and not is_phone and int(first[:15]) < int(last))
    return f"{first} {'to' if is_range else ''} {last}".replace("  ", " ")


def _chapter(match: _Match) -> str:
    value = _roman_value(match[2])
    return f"{match[1]} {numbers.cardinal(value)}" if value else match[0]


def _ruler(match: _Match) -> str:
    value = _roman_value(match[2])
    return f"{match[1]} the {numbers.ordinal(value)}" if value else match[0]


def _roman(match: _Match) -> str:
    value = _roman_value(match[0])
    return numbers.cardinal(value) if value else match[0]


def _version(match: _Match) -> str:
    """1.2.3 is one point two point three; parts with a leading zero are read digit by digit."""
    parts = (numbers.digit_by_digit(p) if p[0] == "0" else numbers.decimal(p) for p in match[0].split("."))
    return _padded(match, " point ".join(parts))


def _ordinal(match: _Match) -> str:
    return _padded(match, numbers.ordinal(int(match[1])))


_CHAPTERS = "(?i:chapter|part|book|volume|act|scene|section|appendix|canto|stave|war)"
_AMOUNT = r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.(?P<part>[0-9]+))?"
_SCALE = r"(?P<scale>\s?(?:thousand|million|billion|trillion|bn|[kKmMbB])\b)?"
_NUMERALS = "|".join(("[IVX]{2,}", "V"))

_RULES: tuple[_Rule, ...] = (
    (re.compile(r"\b(?:https?|ftp)://"), ""),
    (re.compile(r"(?<=[a-z0-9])@(?=[a-z0-9])"), " at "),
    (re.compile(r"(?<=[a-z0-9])\.(?=[a-z]{2,}\b)(?<!\b[a-z]\.)"), " dot "),
    (re.compile(r"\b([A-Z][a-z]+|[0-9]+(?:st|nd|rd|th)) St\."), _street),
    (re.compile(rf"\b({'|'.join(BEFORE_NAME)})\.(?= ?[A-Z])"), lambda m: BEFORE_NAME[m[1]]),
    (re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof)\b\.?(?=\s)"), lambda m: BEFORE_NAME[m[1]]),
    (
        re.compile(rf"\b({'|'.join(BEFORE_NUMBER)})\.(?=\s?[0-9])", re.IGNORECASE),
        lambda m: _cased(m[1], BEFORE_NUMBER[m[1].lower()]),
    ),
    (re.compile(rf"\b({'|'.join(map(re.escape, ANYWHERE))})\.", re.IGNORECASE), _abbreviation),
    (re.compile(r"\bvs\b"), "versus"),
    (re.compile(r"\bPh\.D\b"), "P.H.D"),
    (re.compile(r"\b([0-9]{4})-([0-9]{2})-([0-9]{2})\b"), _iso_date),
    (
        re.compile(
            r"(?<![0-9:.])([01]?[0-9]|2[0-4]):([0-5][0-9])(?::([0-5][0-9]))?(?![0-9:])"
            r"(?:\s?([aApP]\.?[mM]\b)\.?)?"
        ),
        _time,
    ),
    (re.compile(r"\b([0-9]{1,2})\s?([aApP])\.?[mM]\b\.?"), lambda m: f"{m[1]} {m[2].lower()}.m."),
    (re.compile(rf"(?P<sign>(?:US|[CAN])?\$|[£€¥₹]) ?{_AMOUNT}{_SCALE}"), _money),
    (re.compile(rf"(?<![0-9.,]){_AMOUNT}(?P<scale>)\s?(?P<sign>[€£])"), _money),
    (re.compile(r"(?<=[0-9])\s?%"), " percent"),
    (re.compile(r"(?<=[0-9])\s?°\s?C\b"), " degrees celsius"),
    (re.compile(r"(?<=[0-9])\s?°\s?F\b"), " degrees fahrenheit"),
    (re.compile(rf"(?<![0-9.,])([0-9][0-9.,]*)\s?({'|'.join(UNITS)})\b"), _unit),
    (re.compile(r"(?<![0-9.,])([0-9]{1,15})(?:st|nd|rd|th)\b"), _ordinal),
    (re.compile(r"(?<![\w.,])['’]?([12][0-9])?([0-9]0)['’]?s\b"), _decade),
    (re.compile(r"(?<![0-9/.])([0-9]+ )?([0-9]{1,4})/([0-9]{1,4})(?![0-9/])"), _fraction),
    (re.compile(r"(?<![\w.-])[-−](?=\.?[0-9])"), "minus "),
    (re.compile(r"(?<![\w.,-])([0-9]+)\s?([–-])\s?([0-9]+)(?![\w-]|[.,][0-9])"), _range),
    (re.compile(r"#\s?(?=[0-9])"), "number "),
    (re.compile(r"~\s?(?=[0-9])"), "about "),
    (re.compile(r"(?<=[0-9])\s?[x×]\s?(?=[0-9])"), " times "),
    (re.compile(rf"\b({_CHAPTERS})\s([IVXLC]+)\b"), _chapter),
    (re.compile(rf"\b({'|'.join(RULERS)}) ({_NUMERALS})\b"), _ruler),
    (re.compile(r"\b[IVX]{2,}\b"), _roman),
    (re.compile(r"(?<![0-9])[0-9]+(?:\.[0-9]+){2,}"), _version),
    (
        re.compile(
            r"(?<![0-9.])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|(?<![0-9])[0-9]+\.[0-9]+|(?<![\w.])\.[0-9]+"
        ),
        lambda m: _padded(m, numbers.decimal(m[0])),
    ),
    (re.compile(r"[0-9]+"), lambda m: _padded(m, numbers.whole(m[0]))),
    (re.compile(f"[{re.escape(''.join(SYMBOLS))}]"), lambda m: SYMBOLS[m[0]]),
    (re.compile(r"(?<=\w)/(?=\w)"), " "),
    (re.compile(r" {2,}"), " "),
)


def _cased(short: str, full: str) -> str:
    return full.capitalize() if short[0].isupper() else full
