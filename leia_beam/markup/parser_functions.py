"""Parser functions and variables whose value is known from the page alone; all others come to nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote_plus

from leia_beam.markup.marks import HOLE
from leia_beam.markup.page_state import PageState
from leia_beam.titles import namespace_of_title
from leia_beam.wikis import fold_namespace

Arguments = Sequence[str]

_PROJECT_NAMESPACE = 4

_NUMBER = re.compile(r"(-?)(\d+)(\.\d+)?")
_GROUPS_OF_TWO = frozenset({"hi", "bn", "mr", "te", "ta", "gu", "kn", "ml", "pa", "ne", "or", "as", "sa"})
_SEPARATORS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        ["de", "nl", "id", "tr", "it", "da", "el", "hr", "ro", "sr", "sl", "vi", "gl", "eu", "ca"], (".", ",")
    ),
    **dict.fromkeys(["pt", "es"], ("\u00a0", ",")),
    **dict.fromkeys(
        ["fr", "ru", "uk", "pl", "cs", "sk", "sv", "no", "nb", "fi", "hu", "bg", "et", "lv", "lt"], ("\u00a0", ",")
    ),
    "pt": (".", ","),
}
"""Language → (between groups of digits, before decimals); (",", ".") elsewhere."""
_GROUPS_FROM_FIVE = frozenset({"es", "pl", "pt", "it"})
"""Languages that do not part a number of four digits."""


def evaluate(name: str, arguments: Arguments, page: PageState) -> str | None:
    """The value of a function or a variable; None where it is not one of those, or not known.

    >>> from leia_beam.markup.page_state import ExtractionOptions
    >>> from leia_beam.wikis import load_wiki
    >>> page = PageState("Tokyo", load_wiki("en"), ExtractionOptions())
    >>> evaluate("formatnum", ["1234567.891"], page), evaluate("#if", ["", "a", "b"], page), evaluate("pagename", [], page)
    ('1,234,567.891', 'b', 'Tokyo')
    """
    variable = _VARIABLES.get(name)
    if variable is not None:
        return variable(page)
    function = _FUNCTIONS.get(name)
    return function(list(arguments), page) if function is not None and arguments else None


def is_variable(name: str) -> bool:
    """Whether a name is a variable's whose value is known."""
    return name in _VARIABLES


def _argument(arguments: Arguments, index: int, default: str = "") -> str:
    return arguments[index] if index < len(arguments) else default


def _if(arguments: Arguments, page: PageState) -> str | None:
    """The first branch if the condition is not empty; None where a template that is not rendered is all of it."""
    if arguments[0].strip(HOLE + " \n\t") == "" and HOLE in arguments[0]:
        return None
    return _argument(arguments, 1 if arguments[0] else 2)


def _ifeq(arguments: Arguments, page: PageState) -> str:
    first, second = arguments[0], _argument(arguments, 1)
    return _argument(arguments, 2 if first == second or _equal_numbers(first, second) else 3)


def _equal_numbers(first: str, second: str) -> bool:
    try:
        return float(first) == float(second)
    except ValueError:
        return False


def _switch(arguments: Arguments, page: PageState) -> str:
    """`#switch`: cases that fall through, `#default`, a last one without a value."""
    wanted, default, is_found = arguments[0], "", False
    for number, case in enumerate(arguments[1:], start=1):
        key, equals, value = case.partition("=")
        key = key.strip()
        if not equals:
            is_found = is_found or key == wanted or _equal_numbers(key, wanted)
            if number == len(arguments) - 1:
                return key
            continue
        if is_found or key == wanted or _equal_numbers(key, wanted):
            return value.strip()
        if key == "#default":
            default = value.strip()
    return default


def _formatnum(arguments: Arguments, page: PageState) -> str:
    text = arguments[0]
    if _argument(arguments, 1).upper() == "R":
        return text.replace(",", "")
    return format_number(text, page.wiki.language)


def format_number(text: str, language: str) -> str:
    """Numbers in a text with their groups of digits parted as the language does.

    >>> format_number("12345.6", "de"), format_number("1234567", "hi")
    ('12.345,6', '12,34,567')
    """
    return _NUMBER.sub(lambda match: _grouped(match, language), text) if len(text) <= 100 else text


def _grouped(match: re.Match[str], language: str) -> str:
    sign, digits, decimals = match.group(1), match.group(2), match.group(3) or ""
    between, before_decimals = _SEPARATORS.get(language, (",", "."))
    if len(digits) > (4 if language in _GROUPS_FROM_FIVE else 3):
        size = 2 if language in _GROUPS_OF_TWO else 3
        head, groups = digits[:-3], [digits[-3:]]
        while head:
            groups.append(head[-size:])
            head = head[:-size]
        digits = between.join(reversed(groups))
    return sign + digits + decimals.replace(".", before_decimals)


def _plural(arguments: Arguments, page: PageState) -> str:
    """`plural`: the first form for one, the last for all else, as languages with two forms have it."""
    return _argument(arguments, 1) if arguments[0].replace(",", "") == "1" else arguments[-1]


def _pad(arguments: Arguments, is_left: bool) -> str:
    text, width, filler = arguments[0], _argument(arguments, 1), _argument(arguments, 2) or "0"
    missing = min(int(width), 500) - len(text) if width.isascii() and width.isdecimal() else 0
    padding = (filler * max(0, missing))[: max(0, missing)]
    return padding + text if is_left else text + padding


def _iferror(arguments: Arguments, page: PageState) -> str:
    return _argument(arguments, 1) if 'class="error"' in arguments[0] else _argument(arguments, 2) or arguments[0]


def _tag(arguments: Arguments, page: PageState) -> str | None:
    """`#tag`: what the element would show, where that is known: its content, or nothing."""
    name = arguments[0].lower()
    if name in ("ref", "references"):
        return ""
    return page.set_aside(_argument(arguments, 1)) if name == "nowiki" else None


def _namespace_name(arguments: Arguments, page: PageState) -> str | None:
    """`ns:`: the local name of a namespace, by number or by any of its names."""
    text, wiki = arguments[0], page.wiki
    number = int(text) if text.removeprefix("-").isdecimal() and text.isascii() else None
    if number is None:
        number = wiki.namespace_numbers.get(fold_namespace(text), 0 if not text else None)
    if number == 0:
        return ""
    names = wiki.namespaces.get(number) if number is not None else None
    return names[0] if names else None


def _parts_of_title(page: PageState) -> tuple[int, str]:
    """The namespace's number and the rest of the page's title."""
    number = namespace_of_title(page.title, page.wiki)
    return number, page.title.partition(":")[2].lstrip() if number else page.title


def _talk_page(page: PageState) -> str:
    number, name = _parts_of_title(page)
    talk = page.wiki.namespaces.get(number | 1)
    return f"{talk[0]}:{name}" if talk else page.title


def _site_name(page: PageState) -> str:
    """Wikipedias name their project's namespace after themselves."""
    return page.wiki.namespaces[_PROJECT_NAMESPACE][0]


_FUNCTIONS: Mapping[str, Callable[[Arguments, PageState], str | None]] = {
    "#if": _if,
    "#ifeq": _ifeq,
    "#switch": _switch,
    "#iferror": _iferror,
    "#tag": _tag,
    "formatnum": _formatnum,
    "lc": lambda arguments, page: arguments[0].lower(),
    "uc": lambda arguments, page: arguments[0].upper(),
    "lcfirst": lambda arguments, page: arguments[0][:1].lower() + arguments[0][1:],
    "ucfirst": lambda arguments, page: arguments[0][:1].upper() + arguments[0][1:],
    "plural": _plural,
    "ns": _namespace_name,
    "urlencode": lambda arguments, page: quote_plus(arguments[0], safe="-_.~"),
    "anchorencode": lambda arguments, page: arguments[0].replace(" ", "_"),
    "padleft": lambda arguments, page: _pad(arguments, is_left=True),
    "padright": lambda arguments, page: _pad(arguments, is_left=False),
    "defaultsort": lambda arguments, page: "",
    "defaultsortkey": lambda arguments, page: "",
    "defaultcategorysort": lambda arguments, page: "",
    "displaytitle": lambda arguments, page: "",
}

_VARIABLES: Mapping[str, Callable[[PageState], str]] = {
    **dict.fromkeys(["fullpagename", "articlepagename", "subjectpagename"], lambda page: page.title),
    **dict.fromkeys(["pagename", "pagenamee"], lambda page: _parts_of_title(page)[1]),
    "basepagename": lambda page: _parts_of_title(page)[1].rpartition("/")[0] or _parts_of_title(page)[1],
    "rootpagename": lambda page: _parts_of_title(page)[1].partition("/")[0],
    "subpagename": lambda page: _parts_of_title(page)[1].rpartition("/")[2],
    "talkpagename": lambda page: _talk_page(page),
    "sitename": _site_name,
    "namespace": lambda page: page.wiki.namespaces[_parts_of_title(page)[0]][0] if _parts_of_title(page)[0] else "",
    "namespacenumber": lambda page: str(_parts_of_title(page)[0]),
    "!": lambda page: "|",
    "=": lambda page: "=",
}
