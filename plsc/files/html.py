"""Self-contained HTML pages: no scripts, no external resources, all text escaped."""

from __future__ import annotations

import base64
from html import escape

# Names from users must not be able to execute or load anything.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6475; --paper: #ffffff; --card: #f4f6f9; --line: #d9dee6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --soft: #a3adbd; --paper: #14181f; --card: #1e242e;
  --line: #353d4a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 76rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .2rem 0 .8rem; color: var(--soft); overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
.sheet { display: grid; gap: .7rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
figure { margin: 0; padding: .5rem; background: var(--card); border-radius: .4rem; }
figure img { width: 100%; max-height: 12rem; object-fit: contain; border-radius: .2rem; image-rendering: pixelated; }
figure.pair img { width: calc(50% - .2rem); }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
"""


def page(title: str, body: str, style: str = STYLE) -> str:
    """The text of a page. ``title``: plain text; ``body``: HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title><style>{style}</style></head>\n<body>{body}\n</body></html>\n"
    )


def text(value: object) -> str:
    """Escaped plain text, also for quoted attributes."""
    return escape(str(value), quote=True)


def image(data: bytes, alt: str, kind: str = "png") -> str:
    """An embedded image. ``data``: encoded; ``kind``: png or jpeg; ``alt``: its description in plain text."""
    return f'<img alt="{text(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def table(head: list[str], rows: list[list[object]]) -> str:
    """A table of plain texts; "" if there are no rows."""
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<th>{text(one)}</th>' for one in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{text(one)}</td>' for one in row)}</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
