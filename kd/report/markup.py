"""HTML elements as strings, and the sheet of the page they stand on.

Text comes in plain and is escaped here; what is already HTML or SVG is a `Markup`,
so that nothing is left unescaped or escaped twice.
"""

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: str) -> Markup:
    """`element("p", "a < b", class_="note")` is `<p class="note">a &lt; b</p>`.

    Children that are None are left out.
    """
    opening = "".join(
        f' {name.rstrip("_")}="{html.escape(value)}"'
        for name, value in attributes.items()
    )
    inner = "".join(escape(child) for child in children if child is not None)
    return Markup(f"<{tag}{opening}>{inner}</{tag}>")


def escape(text: str) -> Markup:
    """Plain text as HTML; what is HTML already stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(text))


def table(
    header: Sequence[str] | None, rows: Iterable[Sequence[str]], *, class_: str
) -> Markup:
    """A table whose first column names the rows; wide ones scroll by themselves."""
    head = None
    if header:
        columns = (element("th", cell, scope="col") for cell in header)
        head = element("thead", element("tr", *columns))
    body = (
        element(
            "tr", element("th", name, scope="row"), *(element("td", c) for c in cells)
        )
        for name, *cells in rows
    )
    return element(
        "div",
        element("table", head, element("tbody", *body)),
        class_=class_,
    )


def figure(picture: str, *caption: str) -> Markup:
    """An SVG picture and the sentences that explain it, if it needs any."""
    explanation = element("figcaption", *caption) if caption else None
    return element("figure", Markup(picture), explanation)


def document(title: str, *body: Markup | None) -> str:
    """A whole page; its policy forbids the browser to load anything from outside."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            element("title", title),
            element("style", Markup(STYLE)),
            "</head>",
            "<body>",
            element("main", *body),
            "</body>",
            "</html>",
            "",
        )
    )


STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --line: #d8dee4; --notice: #fff8e1;
  --ink: #24292f; --muted: #57606a; --grid: #d8dee4;
  --student: #0072b2; --teacher: #d55e00; --third: #009e73;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15191e; --card: #1d232a; --line: #343c46; --notice: #2e2a1c;
    --ink: #e3e8ed; --muted: #9aa5b1; --grid: #343c46;
    --student: #56b4e9; --teacher: #f0913a; --third: #2fc79a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
}
main { max-width: 1100px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 0.8rem; }
p { margin: 0.5rem 0; }
.facts, .caption, figcaption, .tiles dt, .tiles .unit { color: var(--muted); }
.verdict { font-size: 1.15rem; margin: 1rem 0 1.2rem; max-width: 46rem; }
.origin {
  border-left: 4px solid var(--third); background: var(--card);
  padding: 0.6rem 1rem; margin: 1rem 0; border-radius: 0 6px 6px 0;
  overflow-wrap: anywhere;
}
.origin.warning { border-color: var(--teacher); background: var(--notice); }
.scores, .facts-table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 0.5rem 0.9rem 0.5rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
thead th { color: var(--muted); font-weight: 500; font-size: 0.9rem; }
.scores td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.scores th:nth-child(n+2):not(:last-child), .scores td:not(:last-child) {
  text-align: right; }
.scores td:nth-child(2) { font-weight: 600; }
.scores .student { color: var(--student); }
.scores .teacher { color: var(--teacher); }
.scores tbody th { white-space: nowrap; }
.scores thead th:last-child { padding-left: 1.6rem; }
.scores td:last-child { white-space: normal; min-width: 15rem;
  padding-left: 1.6rem; color: var(--muted); font-size: 0.9rem; }
.compared td, .compared td:last-child { white-space: normal; min-width: 0;
  padding: 0.5rem 0.9rem 0.5rem 0; color: inherit; font-size: 0.95rem; }
.compared thead th:last-child { padding-left: 0; }
.samples table { table-layout: fixed; }
.samples tbody th, .samples td, .samples td:last-child { white-space: pre-wrap;
  min-width: 0; padding: 0.5rem 0.9rem 0.5rem 0; overflow-wrap: anywhere;
  text-align: left; font-size: 0.85rem; font-weight: 400; color: inherit; }
.samples th:nth-child(n+2):not(:last-child), .samples td:not(:last-child) {
  text-align: left; }
.samples thead th:last-child { padding-left: 0; }
.facts-table th, .facts-table td { padding: 0.2rem 0.9rem 0.2rem 0; }
.facts-table th { font-weight: 500; width: 14rem; }
.facts-table td { overflow-wrap: anywhere; }
.tiles { display: grid; gap: 0.8rem; margin: 1.2rem 0 0;
  grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); }
.tiles div { background: var(--card); border-radius: 8px; padding: 0.7rem 0.9rem; }
.tiles dt { font-size: 0.85rem; }
.tiles dd { margin: 0; font-size: 1.2rem; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tiles .unit { font-size: 0.8rem; font-weight: 400; display: block; }
.figures { display: grid; gap: 1.8rem 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.figures.small {
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; min-width: 0; }
.figures.aside, .figures.aside figure { grid-template-columns: none; }
.figures.aside figure { display: grid; gap: 0 1.6rem; align-items: center;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
figure svg { display: block; }
.caption { font-size: 0.9rem; }
figcaption { font-size: 0.9rem; margin-top: 0.3rem; max-width: 34rem; }
details { border: 1px solid var(--line); border-radius: 8px; margin: 0.8rem 0;
  padding: 0.6rem 1rem; }
summary { cursor: pointer; font-weight: 500; }
pre { overflow-x: auto; font: 0.85rem/1.45 ui-monospace, monospace; }
@media (max-width: 40rem) {
  .scores { font-size: 0.8rem; }
  .scores th, .scores td { padding-right: 0.5rem; }
  .scores thead th:last-child, .scores td:last-child { display: none; }
}
@media print { details { display: none; } }
"""
