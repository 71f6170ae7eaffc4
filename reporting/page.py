"""The page itself: a jinja2 template kept as a string, since Flower ships no ``.html``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import display_safe

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6770; --line: #d9dee3;
  --soft: #f4f6f8; --back: #fff; --accent: #0b5fa5; --bad: #b42318; --warn: #8a5a00;
  --grid: #eceff2; --c0: #0b6fb8; --c1: #c2410c; --c2: #15803d; --c3: #8b3fb0; --c4: #a16207;
  --c5: #be185d; --c6: #0e7490; --c7: #4d5b6a; --c8: #6b8e00; --c9: #7c2d12; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --muted: #a9b4be; --line: #3b4651;
  --soft: #1f262d; --back: #14191e; --accent: #79b8f3; --bad: #f4938a; --warn: #e3b05a;
  --grid: #2a323a; --c0: #58aeee; --c1: #f2935a; --c2: #58c487; --c3: #c99be4; --c4: #d9ab4d;
  --c5: #f27fb2; --c6: #4cc2d8; --c7: #a8b5c2; --c8: #adcb57; --c9: #dd9779; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; color: var(--ink); background: var(--back); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header > div, nav > div { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { background: var(--soft); border-bottom: 1px solid var(--line); padding: 1.6rem 0 1.3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .1rem 0 .5rem; overflow-wrap: anywhere; }
h1 small { display: block; font-size: .85rem; font-weight: 400; color: var(--muted); }
h2 { font-size: 1.2rem; margin: 0 0 .25rem; }
.verdict { font-size: 1.05rem; max-width: 50rem; margin: .5rem 0 0; overflow-wrap: anywhere; }
.status { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-size: .85rem;
  font-weight: 600; color: #fff; background: #8a5a00; }
.status.completed { background: #15703a; } .status.failed { background: #b42318; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.6rem, 1fr));
  gap: .6rem 1.4rem; margin: 1.1rem 0 0; }
dl.facts dt { font-size: .78rem; color: var(--muted); }
dl.facts dd { margin: 0; font-weight: 600; font-size: .95rem; overflow-wrap: anywhere; }
nav { border-bottom: 1px solid var(--line); font-size: .88rem; }
nav > div { display: flex; gap: .2rem 1.1rem; flex-wrap: wrap; padding-top: .55rem;
  padding-bottom: .55rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
section { padding: 1.7rem 0 .4rem; }
.note { color: var(--muted); margin: 0 0 .8rem; max-width: 50rem; }
.empty { background: var(--soft); border-left: 3px solid var(--line); padding: .6rem .9rem;
  color: var(--muted); margin: .3rem 0; overflow-wrap: anywhere; }
.warning { border-left: 3px solid var(--warn); color: var(--warn); padding: .1rem .9rem;
  margin: .3rem 0; overflow-wrap: anywhere; }
td small { display: block; color: var(--warn); }
.pictures { display: grid; gap: .6rem 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); align-items: end; }
.pictures > .wide { grid-column: 1 / -1; overflow-x: auto; }
.pictures > .wide svg { min-width: var(--least, 42rem); }
#classes { --least: 0; }
svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans",
  sans-serif !important; }
.scroll { overflow-x: auto; margin: .3rem 0 1rem; }
.scroll, .pictures > .wide { background-repeat: no-repeat; background:
  linear-gradient(to right, var(--back) 1rem, transparent 2rem) local,
  linear-gradient(to left, var(--back) 1rem, transparent 2rem) right / 100% 100% local,
  linear-gradient(to right, var(--line), transparent .9rem),
  linear-gradient(to left, var(--line), transparent .9rem); }
.scroll img { display: block; background: #fff; max-height: 32rem; max-width: none; }
table { border-collapse: collapse; font-size: .9rem; min-width: min(100%, 24rem); }
th, td { text-align: left; padding: .34rem 1.1rem .34rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; color: var(--muted); font-size: .82rem; vertical-align: bottom; }
td:first-child { min-width: 5rem; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
th.figure { white-space: normal; }
.first tbody tr:first-child td { font-weight: 700; }
h3 { font-size: 1rem; margin: 1.3rem 0 .2rem; }
.tall { max-height: 38rem; overflow: auto; border-bottom: 1px solid var(--line); }
.tall thead th { position: sticky; top: 0; background: var(--back); z-index: 1; }
.asked { border-left: 3px solid var(--line); padding-left: .9rem; margin: .3rem 0; }
.asked p { margin: .4rem 0; font-size: .9rem; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .6rem .8rem; margin: .3rem 0; font-size: .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; font-size: .85rem; margin: 0 0 .5rem;
  padding: 0; list-style: none; }
.legend i { display: inline-block; width: 1.4rem; height: 0; margin-right: .4rem;
  vertical-align: middle; }
details summary { cursor: pointer; color: var(--accent); font-size: .9rem; margin: .2rem 0 .5rem; }
footer { color: var(--muted); font-size: .82rem; padding: 1.6rem 0 2.4rem; }
@media (max-width: 40rem) { h1 { font-size: 1.3rem; } th, td { padding-right: .8rem; } }
@media print { .pictures > .wide svg { min-width: 0; }
  nav { display: none; } section { break-inside: avoid; padding-top: 1rem; }
  header { background: none; } .scroll, pre { overflow: visible; max-height: none; }
  body { font-size: 10pt; }
  table { font-size: 8.5pt; } .scroll img { max-width: 100%; } }
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }} · LLM-QFL {{ 'report' if kind == 'run' else kind }}</title>
<style>{{ css }}</style>
</head>
<body>
<header><div>
<h1><small>LLM-QFL {{ kind }} · {{ folder }}</small>{{ title }}</h1>
{% if status %}<span class="status {{ status }}">{{ status }}</span>
<p class="verdict">{{ verdict }}</p>
{% endif %}
{% if facts %}<dl class="facts">
{% for name, value in facts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}</dl>{% endif %}
</div></header>
<nav aria-label="Sections"><div>
{% for section in sections %}<a href="#{{ section.anchor }}">{{ section.title }}</a>
{% endfor %}</div></nav>
<main>
{% for section in sections %}
<section id="{{ section.anchor }}">
<h2>{{ section.title }}</h2>
{% for warning in section.warnings %}<p class="warning">{{ warning }}</p>
{% endfor %}
{% if not section.shown %}<p class="empty">{{ section.empty }}</p>
{% else %}
{% if section.note %}<p class="note">{{ section.note }}</p>{% endif %}
{% if section.legend %}<ul class="legend">
{% if section.legend == 'all' %}
<li><i style="border-top: 4px solid var(--ink)"></i>global model</li>
{% endif %}
{% for line, name in legend %}<li><i style="{{ line }}"></i>{{ name }}</li>
{% endfor %}</ul>{% endif %}
{% set pictures = section.pictures | select | list %}
{% if pictures %}<div class="pictures">
{% for picture in pictures %}
{% set wide = (loop.index > 2 and kind == 'run') or pictures | length == 1 %}
<div{% if wide %} class="wide{{ ' scroll' if picture.startswith('<img') }}" tabindex="0"
 role="region" aria-label="{{ section.title }}, picture {{ loop.index }}"{% endif -%}
>{{ picture | safe }}</div>
{% endfor %}</div>{% endif %}
{% for table in section.tables if table.rows %}
{% if table.title %}<h3>{{ table.title }}</h3>
{% endif %}
{% if table.note %}<p class="note">{{ table.note }}</p>
{% endif %}
{% if table.folded %}<details><summary>{{ table.folded }}</summary>{% endif %}
<div class="scroll{% if table.tall %} tall{% endif %}" tabindex="0" role="region"
 aria-label="{{ section.title }}, table {{ loop.index }}"><table
{%- if section.anchor == 'outcome' %} class="first"{% endif %}>
<thead><tr>{% for cell in table.head %}
<th scope="col"{% if loop.index0 in table.figures %} class="figure"{% endif %}>{{ cell }}</th>
{%- endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% for cell in row -%}
<td{% if loop.index0 in table.figures %} class="figure"{% endif %}>{{ cell }}
{%- if cell.note is defined %}<small>{{ cell.note }}</small>{% endif %}</td>
{%- endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if table.folded %}</details>{% endif %}
{% endfor %}
{% if section.asked %}<h3>What it was asked, and what it said</h3>
<p class="note">Raw answers, as they came; what cannot be shown is written as its escape.</p>
{% if section.asked | length > 20 %}<details><summary>{{ section.asked | length }} rounds</summary>
{% endif %}
{% for round in section.asked %}
{% set at = loop.index %}
<details class="asked"><summary>{{ round.head }}</summary>
{% for one in round.questions %}<p>{{ one.facts }}</p>
{% if one.problem %}<p class="warning">Of no use: {{ one.problem }}</p>
{% endif %}
{% for note in one.notes %}<p>Repaired: {{ note }}</p>
{% endfor %}
<details><summary>Prompt</summary><pre tabindex="0" role="region"
 aria-label="Prompt {{ at }}.{{ loop.index }}">{{ one.prompt }}</pre></details>
<p>Raw answer</p><pre tabindex="0" role="region"
 aria-label="Answer {{ at }}.{{ loop.index }}">{{ one.answer }}</pre>
{% endfor %}</details>
{% endfor %}
{% if section.asked | length > 20 %}</details>
{% endif %}
{% endif %}
{% endif %}
</section>
{% endfor %}
<footer>Made by <code>{{ maker }}</code> from
{{ 'the files of this folder' if kind == 'run' else 'the results folders' }} alone.</footer>
</main>
</body>
</html>
"""


def visible(value: Any) -> Any:
    """Show what hides in anybody's text (`core.display_safe`); our own markup stays."""
    if hasattr(value, "__html__"):
        return value
    return "\n".join(map(display_safe, str(value).split("\n")))


def render(
    *,
    title: str,
    folder: str,
    status: str,
    verdict: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Any],
    legend: Sequence[tuple[str, str]],
    kind: str = "run",
    maker: str = "llm-qfl report",
) -> str:
    """Fill the template; all text is escaped, only our own pictures are not.

    Parameters
    ----------
    title, folder, status, verdict : str
        The head of the page.
    facts : sequence of (name, value)
        What ran.
    sections : sequence of Section
        The parts, in order.
    legend : sequence of (CSS of its line, name)
        The clients, or runs.
    kind, maker : str
        What the page is of, ``run`` or ``comparison``, and the command that makes it.

    Returns
    -------
    str
        The page.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    return environment.from_string(TEMPLATE).render(
        css=Markup(CSS),
        title=title,
        folder=folder,
        status=status,
        verdict=verdict,
        facts=facts,
        sections=sections,
        legend=legend,
        kind=kind,
        maker=maker,
    )
