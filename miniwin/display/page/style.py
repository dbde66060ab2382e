"""The style sheet of a page, in light and in dark, for a phone and for a large screen. Charts are painted by class."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #191c21; --soft: #5c646f; --rule: #e2e5ea; --wash: #f5f6f8; --accent: #3d52d5;
  --point: #a9b1bd;
  --m0: #3d52d5; --m1: #b4480f; --m2: #0b7a62; --m3: #9a2f86; --m4: #6b6200; --m5: #1b7fb5; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161a; --ink: #e7e9ec; --soft: #9aa3ae; --rule: #2c3037; --wash: #1c1f25; --accent: #9dabff;
  --point: #5b6472;
  --m0: #9dabff; --m1: #ffa36b; --m2: #5ccbae; --m3: #f08fd9; --m4: #d6c95a; --m5: #74c4f2; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 74rem; padding: 2.5rem 1.25rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 3rem 0 0.25rem; letter-spacing: -0.005em; }
h3 { font-size: 0.95rem; margin: 1.4rem 0 0; }
p { margin: 0.4rem 0 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.86em; }
.kind { margin: 0 0 0.35rem; color: var(--soft); font-size: 0.85rem; }
.soft, figcaption, .note { color: var(--soft); font-size: 0.9rem; }
.verdict { margin: 1.5rem 0 0; padding-left: 1rem; border-left: 4px solid var(--accent); max-width: 54rem;
  font-size: 1.2rem; line-height: 1.5; }
.verdict + .verdict { margin-top: 0.75rem; font-size: 1rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem 1.5rem;
  margin: 2rem 0 0; padding: 1.1rem 0; border: solid var(--rule); border-width: 1px 0; }
.facts div { min-width: 0; }
.facts .wide { grid-column: span 2; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 3rem;
  align-items: start; }
section { min-width: 0; }
figure { margin: 0.75rem 0 0; max-width: 38rem; }
figcaption ul { list-style: none; display: flex; flex-wrap: wrap; gap: 0.15rem 1.1rem; margin: 0.35rem 0 0;
  padding: 0; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--soft);
  font-variant-numeric: tabular-nums; }
.chart .word, .chart .number { fill: var(--ink); }
.chart .word { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.grid { stroke: var(--rule); } .base { stroke: var(--soft); stroke-opacity: 0.6; }
.rule { stroke: var(--soft); stroke-dasharray: 2 4; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke: var(--point); }
.mark { fill: var(--point); stroke: var(--paper); stroke-width: 1.5; }
.chart a:hover .mark { stroke: var(--ink); }
.mark.pruned { fill: var(--paper); stroke: var(--point); }
.line.front { stroke: var(--accent); stroke-width: 1.5; stroke-opacity: 0.55; }
.mark.front { fill: var(--paper); stroke: var(--accent); stroke-width: 2; }
.mark.best { fill: var(--accent); } .line.best { stroke: var(--accent); stroke-width: 2.5; }
.mark.baseline { fill: var(--ink); } .line.baseline { stroke: var(--ink); stroke-dasharray: 6 4; }
.line.complete, .line.pruned { stroke-width: 1; } .line.pruned { stroke-dasharray: 2 3; }
.m0 { --own: var(--m0); }
.m1 { --own: var(--m1); --dash: 7 4; }
.m2 { --own: var(--m2); --dash: 2 4; }
.m3 { --own: var(--m3); --dash: 9 4 2 4; }
.m4 { --own: var(--m4); --dash: 12 3; }
.m5 { --own: var(--m5); --dash: 4 2 1 2; }
.line[class*=" m"] { stroke: var(--own); stroke-dasharray: var(--dash, none); }
.mark[class*=" m"] { fill: var(--own); }
.band { fill: var(--own, var(--point)); fill-opacity: 0.14; stroke: none; }
.span { fill: none; stroke: var(--own, var(--point)); stroke-width: 1.5; stroke-opacity: 0.7; }
.heat { fill: var(--accent); stroke: var(--rule); } .heat.none { fill: none; stroke-dasharray: 2 3; fill-opacity: 1; }
.bar { fill: var(--point); } .bar.first { fill: var(--accent); }
.bar.hollow { fill: none; stroke: var(--point); stroke-dasharray: 3 2; }
.reach { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.strip { display: block; } .strip text { font: 600 11px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  text-anchor: middle; pointer-events: none; }
.layer { fill: var(--wash); stroke: var(--point); } .layer.whole { fill: var(--accent); stroke: var(--accent); }
.strip text.local { fill: var(--ink); } .strip text.whole { fill: var(--paper); }
.steps { margin: 0.5rem 0 0; padding-left: 1.3rem; max-width: 54rem; } .steps li { margin-top: 0.6rem; }
.steps .box { margin-top: 0.35rem; }
.key { width: 1.5rem; height: 0.75rem; vertical-align: -0.05rem; margin-right: 0.4rem; overflow: visible; }
.key.dot { width: 0.75rem; }
@media (max-width: 34rem) { .chart text { font-size: 15px; } body { padding-top: 1.5rem; } h1 { font-size: 1.6rem; }
  .verdict { font-size: 1.08rem; } }
.scroll { overflow: auto; margin-top: 0.75rem; border: solid var(--rule); border-width: 1px 0; }
.scroll.tall { max-height: 34rem; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 0.4rem 0.7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
tbody tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; color: var(--soft); }
thead th { position: sticky; top: 0; background: var(--paper); z-index: 1; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.wide { white-space: normal; min-width: 24rem; }
tbody th { color: inherit; position: sticky; left: 0; background: var(--paper); }
thead th:first-child { left: 0; z-index: 2; }
tr.best > * { background: var(--wash); font-weight: 600; }
tr.best > :first-child { box-shadow: inset 3px 0 var(--accent); }
tr.baseline > * { background: var(--wash); }
tr:target > * { background: color-mix(in srgb, var(--accent) 14%, var(--paper)); }
th button { all: unset; cursor: pointer; } th button:hover { color: var(--ink); }
th button:focus-visible, .filter button:focus-visible, .copy:focus-visible, .scroll:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.filter { display: flex; flex-wrap: wrap; gap: 0.4rem; margin-top: 0.75rem; }
.filter[hidden] { display: none; }
.filter button, .copy { font: inherit; font-size: 0.85rem; padding: 0.2rem 0.7rem; color: var(--soft);
  background: none; border: 1px solid var(--rule); border-radius: 1rem; cursor: pointer; }
.filter button[aria-pressed=true] { color: var(--paper); background: var(--accent);
  border-color: var(--accent); }
.copy[hidden] { display: none; }
.box { position: relative; margin-top: 0.75rem; max-width: 54rem; }
.box .copy { position: absolute; top: 0.5rem; right: 0.5rem; background: var(--paper); }
pre { margin: 0; padding: 0.9rem 6.5rem 0.9rem 1rem; background: var(--wash); overflow: auto; max-height: 32rem;
  line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin-top: 0.75rem; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 34rem) { .box .copy { position: static; margin-bottom: 0.5rem; } pre { padding-right: 1rem; } }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: 0.85rem; }
@media print { .filter, .copy { display: none; } .scroll.tall, pre { max-height: none; overflow: visible; } }
"""
