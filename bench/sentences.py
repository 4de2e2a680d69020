"""English prose without end for machines that have no book at hand: always the same, never the same twice.

Plain words in plain grammar, in sentences of four to some thirty words and paragraphs of a few. What it
says is nonsense; what it costs to speak, cut and check is near to that of a novel.
"""

from collections.abc import Iterator
from random import Random

SEED = 1
_SENTENCES_A_PARAGRAPH = (2, 8)
_PEOPLE = "the doctor|my sister|an old sailor|the young teacher|our neighbour|the captain|a stranger|the boy"
_THINGS = (
    "letter|lamp|river|garden|window|machine|mountain|bridge|engine|candle|kitchen|story|picture|harbour|forest"
    "|ladder|market|basket|village|station|winter|morning|question|answer|hammer|island|curtain|table|journey"
)
_KINDS = "small|broken|silent|heavy|distant|yellow|ancient|narrow|gentle|curious|wooden|frozen|bright|hollow"
_DEEDS = (
    "carried|remembered|painted|followed|opened|described|wanted|noticed|repaired|forgot|admired|watched|lost"
    "|sold|measured|answered for|talked about|looked at|walked past|laughed at"
)
_PLACES = "beside|behind|under|near|above|beyond|in front of|not far from"
_TIMES = (
    "in the evening|after breakfast|before the rain|on a cold morning|every summer|at last"
    "|for the second time|without a word|as soon as the snow was gone|long ago"
)
_JOINS = "and|but|because|although|while|so that|until"
_ENDS = "....?!"


def endless(seed: int = SEED) -> Iterator[str]:
    """Paragraphs, one after the other."""
    random = Random(seed)
    while True:
        yield " ".join(_sentence(random) for _ in range(random.randint(*_SENTENCES_A_PARAGRAPH)))


def words_of(count: int) -> str:
    """Paragraphs of at least so many words in all, with as many spaces between them."""
    told: list[str] = []
    so_far = 0
    for paragraph in endless():
        told.append(paragraph)
        so_far += paragraph.count(" ")
        if so_far >= count:
            break
    return "\n\n".join(told)


def _sentence(random: Random) -> str:
    clauses = [_clause(random)]
    while random.random() < 0.4 and len(clauses) < 3:
        clauses.append(f"{_one(random, _JOINS)} {_clause(random)}")
    if random.random() < 0.4:
        clauses[0] = f"{_one(random, _TIMES)} {clauses[0]}"
    said = ", ".join(clauses)
    return said[0].upper() + said[1:] + random.choice(_ENDS)


def _clause(random: Random) -> str:
    said = f"{_one(random, _PEOPLE)} {_one(random, _DEEDS)} {_thing(random)}"
    return f"{said} {_one(random, _PLACES)} {_thing(random)}" if random.random() < 0.5 else said


def _thing(random: Random) -> str:
    kind = f"{_one(random, _KINDS)} " if random.random() < 0.6 else ""
    return f"the {kind}{_one(random, _THINGS)}"


def _one(random: Random, words: str) -> str:
    return random.choice(words.split("|"))
