"""Lists of English words that more than one module of this room needs.

Data only. Invariant: a word stands in one list for one reason, told above it.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


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
