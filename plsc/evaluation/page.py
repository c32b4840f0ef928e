"""A verification report as one HTML file: metrics, curves and misclassified pairs. No scripts, no external files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Optional

from plsc.evaluation.charts import roc_chart, score_chart
from plsc.evaluation.metric import format_number
from plsc.evaluation.output_files import write_text
from plsc.evaluation.page_data import Mistake, PageData
from plsc.evaluation.tables import format_accuracy
from plsc.files import html

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6475; --paper: #ffffff; --card: #f4f6f9; --line: #d9dee6;
  --same: #1f77b4; --different: #d9660a; --roc: #7b3fb5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #a3adbd; --paper: #14181f; --card: #1e242e;
  --line: #353d4a; --same: #5fb0ea; --different: #f59a4a; --roc: #c08cf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 66rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .2rem 0 .8rem; color: var(--soft); overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem 1rem;
  margin: 0 0 1.2rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-variant-numeric: tabular-nums; }
dd.none { color: var(--soft); }
.charts, .pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.pairs { grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); }
figure { margin: 0; padding: .8rem; background: var(--card); border-radius: .5rem; }
figcaption { font-size: .9rem; } .charts figcaption { font-weight: 600; margin-bottom: .3rem; }
.pairs img { width: calc(50% - .2rem); aspect-ratio: 1; object-fit: contain; border-radius: .2rem; }
.pairs .two { display: flex; gap: .4rem; margin-bottom: .4rem; }
.key { font-weight: 400; } .key::before { content: ""; display: inline-block; width: .8em; height: .8em;
  margin: 0 .3em 0 .9em; border-radius: .15em; background: var(--colour); }
.key.dashed::before { width: 1.2em; height: 0; vertical-align: middle; border-radius: 0; background: none;
  border-top: 2px dashed var(--ink); }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .roc { fill: none; stroke: var(--roc); stroke-width: 2.5; }
svg .same, svg .different { fill-opacity: .35; stroke-width: 1.8; }
svg .same { fill: var(--same); stroke: var(--same); }
svg .different { fill: var(--different); stroke: var(--different); }
svg .threshold { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }
"""


Numbers = Mapping[str, Mapping[str, Mapping[str, Optional[float]]]]  # set, metric, name of the number


def write_page(
    path: str | os.PathLike[str],
    results: Sequence[PageData],
    title: str = "Verification",
    numbers: Numbers | None = None,
) -> None:
    """Write one self-contained HTML file for all sets. The write is atomic.

    Size: below 60 kB and 40 small JPEGs per set. title: the name of the model. numbers: values of other metrics, shown
    under the name of the set. Raises DataError if the file cannot be written.
    """
    write_text(path, page(results, title, numbers), "page")


def page(results: Sequence[PageData], title: str, numbers: Numbers | None = None) -> str:
    """Return the HTML of the page."""
    numbers = numbers or {}
    parts = [_section(one, numbers.get(one.name, {})) for one in results]
    others = {name: metrics for name, metrics in numbers.items() if name not in [one.name for one in results]}
    parts += [f"<section><h2>{html.text(name)}</h2>{_metrics(metrics)}</section>" for name, metrics in others.items()]
    sets = "\n".join(parts) or "<p>No set was verified.</p>"
    return html.page(title, f"<h1>Verification</h1><p>{html.text(title)}</p>\n{_overview(results)}\n{sets}", STYLE)


def _overview(results: Sequence[PageData]) -> str:
    if len(results) < 2:
        return ""
    head = "<tr><th>set</th><th>accuracy</th><th>AUC</th><th>EER</th></tr>"
    rows = "".join(
        f"<tr><td>{html.text(one.name)}</td><td>{format_accuracy(one.result)}</td><td>{one.result.auc:.5f}</td>"
        f"<td>{one.result.eer:.5f}</td></tr>"
        for one in results
    )
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def _section(one: PageData, metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    result = one.result
    values: dict[str, str | None] = {
        "accuracy": format_accuracy(result),
        "AUC": f"{result.auc:.5f}",
        "EER": f"{result.eer:.5f}",
        "XNorm": f"{result.xnorm:.3f}",
        "threshold (cosine)": f"{one.threshold:.4f}",
    }
    for far, tar in result.tar_at_far.items():
        values[f"TAR at FAR {far:g}"] = None if tar is None else f"{tar:.4f}"
    keys = "".join(f'<span class="key" style="--colour: var(--{k})">{k}</span>' for k in ("same", "different"))
    keys += '<span class="key dashed">threshold</span>'
    return (
        f"<section><h2>{html.text(one.name)}</h2>"
        f"<p>{result.num_same:,} pairs of the same, {result.num_different:,} of different identities</p>"
        f'{_list(values)}<div class="charts"><figure><figcaption>ROC</figcaption>{roc_chart(result)}</figure>'
        f"<figure><figcaption>Scores{keys}</figcaption>{score_chart(one)}</figure></div>"
        f"{_metrics(metrics)}{_mistakes(one)}</section>"
    )


def _metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    return "".join(
        f"<h3>{html.text(metric)}</h3>"
        + _list(
            {name: None if value is None else format_number(value) for name, value in values.items()}, "not supported"
        )
        for metric, values in metrics.items()
    )


def _list(values: dict[str, str | None], none: str = "too few pairs") -> str:
    return "<dl>{}</dl>".format(
        "".join(
            f"<div><dt>{html.text(name)}</dt>"
            + (f'<dd class="none">{none}</dd></div>' if value is None else f"<dd>{html.text(value)}</dd></div>")
            for name, value in values.items()
        )
    )


def _mistakes(one: PageData) -> str:
    total = one.result.num_same + one.result.num_different
    text = f"{one.num_mistakes:,} of {total:,} pairs are on the wrong side of the threshold"
    if one.mistakes:
        text += f"; the {len(one.mistakes)} farthest from it" if len(one.mistakes) < one.num_mistakes else ""
    cards = "".join(map(_card, one.mistakes))
    return f'<h3>Worst misclassified pairs</h3><p>{text}.</p><div class="pairs">{cards}</div>'


def _card(mistake: Mistake) -> str:
    actual, predicted = ("same", "different") if mistake.same else ("different", "same")
    images = "".join(
        html.image(jpeg, f"image {2 * mistake.pair + side}", "jpeg") for side, jpeg in enumerate(mistake.images)
    )
    return (
        f'<figure><div class="two">{images}</div><figcaption>pair {mistake.pair}: score {mistake.score:.4f}<br>'
        f'<b style="color: var(--{actual})">{actual}</b>, taken for {predicted}</figcaption></figure>'
    )
