"""Requests for a web scraper, answered by a Python script with BeautifulSoup."""

# ruff: noqa: E501, SIM905 - wordings and word lists read better in long lines

from dataclasses import dataclass
from random import Random
from typing import Final

from . import phrasing, words
from .record import Task

# What a field is called, in the singular and the plural, its key, its selector
# when the request names none, and its attribute (None: the text).
_FIELDS: Final[tuple[tuple[str, str, str, str, str | None], ...]] = (
    ("title", "titles", "title", "h2", None),
    ("title", "titles", "title", "h2", None),
    ("title", "titles", "title", "h2", None),
    ("URL", "URLs", "url", "a", "href"),
    ("url", "urls", "url", "a", "href"),
    ("link", "links", "link", "a", "href"),
    ("link", "links", "link", "a", "href"),
    ("price", "prices", "price", ".price", None),
    ("price", "prices", "price", ".price", None),
    ("author", "authors", "author", ".author", None),
    ("date", "dates", "date", "time", None),
    ("image", "images", "image", "img", "src"),
    ("name", "names", "name", ".name", None),
    ("rating", "ratings", "rating", ".rating", None),
    ("summary", "summaries", "summary", "p", None),
    ("headline", "headlines", "headline", ".headline", None),
    ("text", "texts", "text", ".text", None),
)
_ITEMS: Final = tuple(
    """article product post book job event recipe review offer game movie song quote comment course
    card item result listing photo ticket car house hotel flight paper tutorial video podcast
    member player team question answer deal menu-item entry story""".split()
)
_TAGS: Final = ("div", "li", "article", "section", "tr", "figure", "span", "p")
_TEXT_TAGS: Final = ("h1", "h3", "h4", "span", "strong", "em", "p", "b", "td", "div")
_HOSTS: Final = ("example.com", "example.org", "example.net", "test", "local", "io", "com", "org", "dev")

_THINGS: Final = (
    "[a|a simple|a small|] [Python|] [web|] scraper [in Python|]",
    "[a|a small|] Python [scraping|] script",
    "[a|] [Python|] [script|program] [using requests and BeautifulSoup|with BeautifulSoup|with requests and bs4|]",
    "Python code [using BeautifulSoup|with requests|]",
)
_DOES: Final = (
    " that [scrapes|extracts|collects|fetches|gets|pulls|lists|reads|downloads|returns] ",
    " to [scrape|extract|collect|fetch|get|pull|list|read] ",
    " which [scrapes|extracts|collects|gets|reads] ",
    " for ",
)
_VERBS: Final = (
    "[Scrape|Scrape|Extract|Collect|Fetch|Get|Get me|Pull|List|Grab|Read|Find|Parse] ",
    "[Please|Could you|Can you|I want you to|I need you to|Help me] [scrape|extract|collect|fetch|get|pull|list|grab] ",
    "[I need|I want|I would like|Give me|Show me] ",
    "[BeautifulSoup|Python|Python scraper|Scraper|Web scraping]: [get|scrape|extract|collect|] ",
)
_HELD_VERBS: Final = ("[Harvest|Retrieve|Obtain] ", "[Have a script gather|Let a crawler bring back] ")
_WHOLE: Final = (
    "{fields} of {count} {items} [from|on|at|in] {place}.",
    "{fields} of {count} {items} [from|on|at] {place}.",
    "{fields} for {count} {items} [from|on|at] {place}.",
    "{fields} [from|of] {place}, {count} {items}.",
    "{count} {items} [from|on|at] {place}[:| with|, with] {fields}.",
    "{count} {items} [from|on|at] {place}. [I need|I want|For each one I want|Give me|Collect|Take|Each row has|Fields:] {fields}.",
    "{fields} from {count} {items} [on|at|of] {place}.",
)
_FROM: Final = (
    "[From|On] {place}, [scrape|get|collect|extract|take|read|list] {fields} [of|for|from] {count} {items}.",
    "{place}: {fields} [of|for|from] {count} {items}.",
    "[Open|Go to|Load|Fetch|Scrape|Visit] {place} and [collect|get|extract|return|list|print] {fields} of {count} {items}.",
)
_EXPLAIN_ITEM: Final = (
    " [Each|Every] [one|item|{item}] [is|is in|is an element matching|matches] {s}.",
    " [The|] [items|{items0}] [are|are in|match|sit in|live in] {s}.",
    " [Item selector|Selector|Items|The selector is|CSS selector|Use the selector]: {s}.",
    " Use {s} [as the item selector|as the selector|to find them|for the items].",
    " They [are in|sit in|match] {s}.",
)
_FIELD_WITH: Final = (
    "{field} ({s})",
    "{field} ({s})",
    "{field} [in|from] {s}",
    "{field} from {s}",
    "{field} [at|=|->] {s}",
    "{field} [which is in|found in] {s}",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    said: str
    key: str
    selector: str
    attribute: str | None
    given: bool


def example(rng: Random, *, held: bool = False) -> Task:
    """Return one request for a scraper; `held` draws from the wordings kept for evaluation."""
    plural, selector, given = _item(rng)
    limit = (
        rng.choice((rng.randint(1, 20), rng.randint(1, 20), rng.choice((25, 30, 40, 50, 100))))
        if rng.random() < 0.55
        else None
    )
    fields = _fields(rng, explicit=given and rng.random() < 0.6)
    slots: dict[str, str] = {"mark": words.mark(rng, bare=True)}
    place, url = _place(rng, slots)
    body = _body(rng, limit=limit, held=held)
    body = _describe(rng, body, plural=plural, selector=selector if given else None, slots=slots)
    slots["fields"] = _said(rng, fields, mark=slots["mark"])
    body = body.replace("{place}", place)
    request = phrasing.fill(phrasing.roughen(rng, body), slots)
    shape = "+".join(sorted(field.key if field.key in _KNOWN else "other" for field in fields))
    return Task(
        kind="scraper",
        request=request,
        code=code(url=url, item=selector, limit=limit, fields=fields),
        key=f"scraper/{shape}/{limit is not None}/{given}/{words.share(selector):.1f}",
        held_wording=held,
        spec={
            "url": url,
            "item": selector,
            "limit": limit,
            "fields": {field.key: [field.selector, field.attribute] for field in fields},
        },
        literals=(url.split("://")[1], *(field.key for field in fields)),
    )


_KNOWN: Final = frozenset(entry[2] for entry in _FIELDS)


def code(*, url: str, item: str, limit: int | None, fields: list[_Field]) -> str:
    """Return the script: one function and one call that prints JSON."""
    rows = "".join(
        f'                "{field.key}": item.select_one("{field.selector}")'
        + (f'["{field.attribute}"],\n' if field.attribute else ".get_text(strip=True),\n")
        for field in fields
    )
    cut = "" if limit is None else f"[:{limit}]"
    return f'''import json

import requests
from bs4 import BeautifulSoup


def scrape(url):
    response = requests.get(url, timeout=10)
    response.raise_for_status()
    soup = BeautifulSoup(response.text, "html.parser")
    rows = []
    for item in soup.select("{item}"){cut}:
        rows.append(
            {{
{rows}            }}
        )
    return rows


print(json.dumps(scrape("{url}")))
'''


def _item(rng: Random) -> tuple[str, str, bool]:
    """Return what the items are called in the plural, their selector, and whether it is given."""
    name = rng.choice(_ITEMS) if rng.random() < 0.6 else words.word(rng)
    if rng.random() < 0.25:
        name = "article"
    plural = name[:-1] + "ies" if name.endswith("y") and name[-2] not in "aeiou" else name + "s"
    if rng.random() < 0.4:
        return plural, "article" if name == "article" else f".{name}", False
    style = rng.randrange(5)
    label = words.element(rng) if rng.random() < 0.5 else name
    tag = rng.choice(_TAGS)
    selector = (f".{label}", f"{tag}.{label}", f"{tag}.{label}", f".{label} {tag}", tag)[style]
    return plural, selector, True


def _fields(rng: Random, *, explicit: bool) -> list[_Field]:
    fields: dict[str, _Field] = {}
    count = rng.choice((1, 2, 2, 2, 3, 3))
    while len(fields) < count:
        one, many, key, selector, attribute = rng.choice(_FIELDS)
        given = explicit and rng.random() < 0.8
        if rng.random() < 0.2:
            one = key = words.word(rng)
            many, selector, attribute = one + "s", f".{one}", None
        if given:
            label = words.element(rng)
            choices = (f".{label}", f"{rng.choice(_TEXT_TAGS)}.{label}", rng.choice(_TEXT_TAGS))
            selector = f"a.{label}" if attribute == "href" else f"img.{label}" if attribute else rng.choice(choices)
        if not {field.said.lower() for field in fields.values()} & {one.lower(), many.lower()}:
            said = rng.choice((one, many))
            fields[key] = _Field(said=said, key=key, selector=selector, attribute=attribute, given=given)
    return list(fields.values())


def _said(rng: Random, fields: list[_Field], *, mark: str) -> str:
    frame = phrasing.pick(rng, _FIELD_WITH)
    parts: list[str] = []
    article = rng.choice(("the ", "the ", "", "all "))
    for index, field in enumerate(fields):
        said = frame.replace("{s}", words.quote(field.selector, mark=mark)) if field.given else "{field}"
        parts.append(("" if index and rng.random() < 0.7 else article) + said.replace("{field}", field.said))
    return phrasing.listed(rng, parts)


def _place(rng: Random, slots: dict[str, str]) -> tuple[str, str]:
    """Return how the page is called, a template, and its address."""
    host = words.word(rng) + rng.choice(("", "", "-" + words.word(rng), words.word(rng)))
    domain = f"{host}.{rng.choice(_HOSTS)}"
    if rng.random() < 0.2:
        domain = f"{rng.choice(('www', 'news', 'shop', 'blog'))}.{rng.choice(('example.com', 'example.org', domain))}"
    if rng.random() < 0.05:
        domain = f"localhost:{rng.choice((8000, 8080, 5000, 3000))}"
    path = "/".join(words.snake(rng).replace("_", rng.choice(("-", "_"))) for _ in range(rng.choice((0, 1, 1, 2))))
    path += rng.choice(("", "", "", "/", ".html")) if path else ""
    style = rng.random()
    if style < 0.3:
        section = words.word(rng)
        slots["section"] = section.capitalize() if rng.random() < 0.7 else section
        slots["domain"] = domain
        frame = phrasing.pick(
            rng,
            (
                "the {mark}{section}{mark} [section|page|category|part] of {domain}",
                "the {section} section [of|on] {domain}",
                "{domain}, section {section}",
                "{domain} (section {mark}{section}{mark})",
            ),
        )
        return frame, f"https://{domain}/{section}"
    url = f"{rng.choice(('https', 'https', 'http'))}://{domain}" + (f"/{path}" if path else rng.choice(("", "/")))
    if style < 0.5:
        url = f"https://{domain}" + (f"/{path}" if path else "")
        slots["url"] = url.removeprefix("https://")
        return "{url}", url
    slots["url"] = url
    return rng.choice(("{url}", "{url}", "{mark}{url}{mark}", "the page {url}", "the site {url}")), url


def _body(rng: Random, *, limit: int | None, held: bool) -> str:
    """Return the request as a template with {fields}, {count}, {items} and {place}."""
    draw = rng.random()
    if draw < 0.2 and not held:
        body = phrasing.pick(rng, _FROM)
    else:
        whole = phrasing.pick(rng, _WHOLE)
        if held:
            body = phrasing.pick(rng, _HELD_VERBS) + whole
        elif draw < 0.5:
            body = phrasing.ask(rng, rng.choice(_THINGS), held=False).strip() + phrasing.pick(rng, _DOES) + whole
        else:
            body = phrasing.pick(rng, _VERBS) + whole
    if limit is None:
        count = rng.choice(("all", "all", "all the", "every one of the", "the", "the", "all of the"))
    else:
        number = words.number_text(rng, number=limit)
        count = phrasing.expand(
            rng,
            f"[the first {number}|the first {number}|the first {number}|the top {number}|the latest {number}|{number}|up to {number}|at most {number}|the {number} first|the newest {number}]",
        )
        if rng.random() < 0.15:
            count = rng.choice(("the", "all"))
            body += rng.choice(
                (
                    " Limit: {n}.",
                    " Only the first {n}.",
                    " At most {n}.",
                    " Take the first {n}.",
                    " Stop after {n}.",
                    " First {n} only.",
                    " No more than {n}.",
                )
            ).replace("{n}", number)
    return body.replace("{count}", count)


def _describe(rng: Random, body: str, *, plural: str, selector: str | None, slots: dict[str, str]) -> str:
    """Return `body` with the items named and, where `selector` is given, explained."""
    slots["items0"] = plural
    slots["item"] = "entry"
    if selector is None:
        return body.replace("{items}", "{items0}")
    slots["s"] = words.quote(selector, mark=slots["mark"])
    style = rng.randrange(4)
    if style == 0:
        return body.replace("{items}", "{items0} ({s})")
    if style == 1:
        return body.replace(
            "{items}",
            rng.choice(
                (
                    "{s} elements",
                    "{s}",
                    "elements matching {s}",
                    "{items0} in {s}",
                    "{items0} matching {s}",
                    "{s} items",
                )
            ),
        )
    return body.replace("{items}", "{items0}") + phrasing.pick(rng, _EXPLAIN_ITEM)
