"""Words that end in a full stop without ending a sentence, as far as sentencex 1.0.32 does not know them.

Written down without the last full stop. A word belongs here only if it hardly ever ends a sentence: ``etc.``
and ``usw.`` do, so they are absent (a lower-case word behind them joins the pieces anyway).
"""

_NORDIC = "bl.a ca dvs f.eks kl m.a.o nr"

_GLUED = {
    "cs": "č čl Ing Mgr MUDr např str tj tzn tzv ul",
    "da": _NORDIC,
    "de": "Abs Art Bd Bsp bzw ca d.h evtl Fr Frl ggf Hr Hrn inkl Nr o.g Prof S sog St Str u.a vgl z.B z.T",
    "en": "approx Capt cf Col e.g Fig Gen Gov Hon i.e Lt Messrs Mr Mrs Ms Mt Prof Rep Rev Sen Sgt St Vol vs",
    "es": "Av Avda D Da Dña Dr Dra núm p.ej pág Prof Sr Sra Sras Sres Srta Ud Uds",
    "fi": "esim ks mm nro s.o ts",
    "fr": "c.-à-d Dr Drs M Me Mgr Mlle Mlles MM Mme Mmes p.ex Pr St Ste",
    "hu": "dr ifj kb özv pl ún",
    "it": "avv dott dott.ssa Egr es Gent ing p.es pag prof S sig sig.ra Sigg Spett",
    "nb": _NORDIC,
    "nl": "bijv blz ca d.w.z dhr dr drs i.p.v i.v.m ing ir m.b.t mevr mr mw nl nr o.a o.l.v prof t.o.v z.g",
    "nn": _NORDIC,
    "no": _NORDIC,
    "pl": "al dr godz im inż m.in mgr np nr pl prof św tj tzn tzw ul",
    "pt": "Av Dr Dra Exma Exmo Ilmo n núm p.ex pág Prof Profa R Sr Sra Sras Srs Srta",
    "ro": "dl dna dr nr pag prof str",
    "ru": "акад ул им проф св см т.е т.к т.н",
    "sk": "čl Ing Mgr napr str tj tzn tzv ul",
    "sv": _NORDIC + " s.k t.ex t.o.m",
    "tr": "Av Doç Dr örn Prof Sn yak",
    "uk": "акад вул див ім проф св т.зв",
}

_BEFORE_DIGIT = (
    "abb app art bd bl blz c ca cap cf ch chap circa d eq exp fig gl godz hal hl iss kap kb kl klo lk n nn no"
    " nos nr nro num núm ok p pag pág par pg pp pos r rys s sec sect sez sid str t tab tel thm v ver vol vols"
    " г гл д кв л с см ст стр т č čl"
)

_MONTHS = (
    "Januar Jänner Februar Feber März April Mai Juni Juli August September Oktober November Dezember"
    " Jan Feb Apr Jun Jul Aug Sep Sept Okt Nov Dez"
)

_BEFORE_ORDINAL = (
    "ab als am bis das dem den der des die im ihr ihre ihrem ihren ihrer jeden jeder jedes mein meine meinem"
    " meinen meiner sein seine seinem seinen seiner seit und unser vom zum zur"
)


def _words(spaced: str) -> frozenset[str]:
    return frozenset(spaced.split())


_GLUED_WORDS = {language: _words(words) for language, words in _GLUED.items()}
_DIGIT_WORDS = _words(_BEFORE_DIGIT)
_NO_WORDS = _words("")

GERMAN_MONTHS = _words(_MONTHS)
"""Behind "3." they make it an ordinal."""

BEFORE_GERMAN_ORDINAL = _words(_BEFORE_ORDINAL)
"""Words (lower case) in front of "3." that make it an ordinal: articles, possessives, prepositions."""


def is_glued(word: str, language: str) -> bool:
    """Whether ``word`` (without its last full stop) belongs to what follows it, as titles do."""
    words = _GLUED_WORDS.get(language, _NO_WORDS)
    return word in words or (word[:1].isupper() and word[:1].lower() + word[1:] in words)


def is_glued_to_digit(word: str) -> bool:
    """Whether ``word`` (without its last full stop) belongs to a number behind it: ``No. 5``, ``p. 12``."""
    return word.lower() in _DIGIT_WORDS
