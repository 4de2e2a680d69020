"""Lists of English words that more than one module of this room needs.

Data only. Invariant: a word stands in one list for one reason, told above it.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _in_order(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _table(text: str) -> dict[str, str]:
    """Pairs written key=value, with _ for a space."""
    return dict(pair.replace("_", " ").split("=") for pair in text.split())


# Words that begin a sentence far more often than they are a surname.
STARTERS = _words(
    "A An The This That These Those It He She They We You I There Here Then When While Where What Who Why How"
    " But And Or So Yet If As At In On By For From With To Of Not No Yes Now Since After Before Although"
    " His Her Its Their Our My Your Some Many Most All One Both Each Every Once Only Also However Did Does Do"
    " Is Was Are Were Has Had Have Will Would Can Could May Might Must Should"
)
# Written with stops, read letter by letter, and at the end of a sentence as often as in it.
ACRONYMS = _words(
    "U.S. U.S.A. U.K. U.N. E.U. D.C. L.A. N.Y. P.M. A.M. B.C. A.D. C.E. B.C.E. I.E. E.G. P.S. P.O. Q.E.D."
    " R.I.P. M.D. B.A. M.A. U.S.S.R. F.B.I. C.I.A. B.B.C. A.I. D.I.Y. I.D. I.Q. T.V. V.I.P. R.S.V.P."
)
# With a stop and before a name.
BEFORE_NAME = _table(
    "Dr=Doctor Mr=Mister Mrs=Missus Ms=Miz Prof=Professor Messrs=Messieurs Gen=General Col=Colonel"
    " Capt=Captain Lt=Lieutenant Sgt=Sergeant Maj=Major Rev=Reverend Hon=Honorable Gov=Governor"
    " Sen=Senator Rep=Representative Pres=President St=Saint Mt=Mount Ft=Fort"
)
MONTHS = _in_order("January February March April May June July August September October November December")
# With a stop and before a number.
BEFORE_NUMBER = (
    _table(
        "no=number nos=numbers fig=figure figs=figures p=page pp=pages vol=volume ch=chapter sec=section"
        " c=circa ca=circa"
    )
    | {name[:3].lower(): name for name in MONTHS if name != "May"}
    | {"sept": "September"}
)
# With a stop, wherever they stand.
ANYWHERE = _table(
    "e.g=for_example i.e=that_is vs=versus viz=namely cf=compare etc=et_cetera approx=approximately"
    " dept=department inc=incorporated ltd=limited corp=corporation jr=junior sr=senior ave=avenue"
    " blvd=boulevard"
)
# Of these, the ones that never end a sentence.
NEVER_LAST = _words("e.g i.e vs viz cf approx")
# One, many, a hundredth, hundredths.
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
SCALES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion"}
# One and many. The longer first, since they are tried in order.
UNITS = {
    unit: (one.replace("_", " "), many.replace("_", " "))
    for unit, one, many in (
        row.split()
        for row in (
            "km/h kilometer_per_hour kilometers_per_hour",
            "mph mile_per_hour miles_per_hour",
            "kHz kilohertz kilohertz",
            "MHz megahertz megahertz",
            "GHz gigahertz gigahertz",
            "Hz hertz hertz",
            "km kilometer kilometers",
            "cm centimeter centimeters",
            "mm millimeter millimeters",
            "kg kilogram kilograms",
            "mg milligram milligrams",
            "ml milliliter milliliters",
            "kW kilowatt kilowatts",
            "kB kilobyte kilobytes",
            "KB kilobyte kilobytes",
            "MB megabyte megabytes",
            "GB gigabyte gigabytes",
            "TB terabyte terabytes",
            "ft foot feet",
            "lbs pound pounds",
            "lb pound pounds",
            "oz ounce ounces",
        )
    )
}
# Read as an ordinal after these names: Henry VIII. Not I, which is more often the pronoun.
RULERS = _in_order(
    "Henry Louis Elizabeth George Charles James Edward Richard William Philip Paul Napoleon Pius Nicholas"
    " Alexander Catherine Frederick Leo Gregory Benedict Francis Ferdinand Wilhelm Gustav Christian Haakon"
    " Innocent Clement Urban Ramses Ptolemy"
)
SYMBOLS = {
    "&": " and ",
    "@": " at ",
    "+": " plus ",
    "=": " equals ",
    "×": " times ",
    "÷": " divided by ",
    "°": " degrees ",
    "§": " section ",
    "%": " percent ",
    "©": " copyright ",
    # said by nobody, though some engines do
    **dict.fromkeys("®™_*^`|<>~\\#$£€¥₹", " "),
}
# Words that a recogniser writes short and nobody says short.
SHORT_WORDS = _table(
    "mr=mister mrs=missus ms=miz dr=doctor prof=professor vs=versus etc=et_cetera jr=junior sr=senior ok=okay"
)
COUNTING = _words(
    "eight eighteen eighty eleven fifteen fifty five forty four fourteen nine nineteen ninety one seven"
    " seventeen seventy six sixteen sixty ten thirteen thirty three twelve twenty two"
)
LARGE = _words("billion hundred million thousand trillion")
