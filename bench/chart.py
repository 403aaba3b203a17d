"""Bar charts as SVG, written by hand: one file, no script, light and dark.

A group per row (the geometric mean first), a bar per series, from 0 to the
ratio; a line stands at 1.0, glibc. Bars beyond the axis end in an arrow and show
their value like all others.
"""
from xml.sax.saxutils import escape

COLOURS = {
    "plain": "#56a8e8", "hardened": "#2f6fd0", "strict": "#7a55d6", "debug": "#b05cc8", "guard": "#c2569a",
    "jemalloc": "#d1495b", "mimalloc": "#2a9d6f", "tcmalloc": "#d68a1f", "scudo": "#8a8f98",
}
SPARE = ["#3aa6a6", "#a67c3a", "#6b8f2f", "#c46f9f", "#5f6f9f"]
LEFT, RIGHT, TOP, WIDTH = 120, 60, 84, 860
BAR, GAP = 9, 10
AXIS_LIMIT = 3.0

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.small { font-size: 9px; paint-order: stroke; stroke: #ffffff; stroke-width: 2px } .title { font-size: 16px; font-weight: 600 } .mean { font-weight: 700 }
.back { fill: #ffffff } .grid { stroke: #8c959f; stroke-opacity: .35 } .one { stroke: #24292f; stroke-width: 1.5 }
.band { fill: #8c959f; fill-opacity: .10 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { stroke: #0d1117 } .back { fill: #0d1117 } .one { stroke: #e6edf3 } }
"""


def colour(name, index):
    return COLOURS.get(name.split("+")[0] if "+" not in name else name) or SPARE[index % len(SPARE)]


def axis_end(groups):
    largest = max((v for _, values in groups for v in values if v is not None), default=1.0)
    return min(AXIS_LIMIT, max(1.25, -(-largest // 0.25) * 0.25))


def bar(x_of, y, value, end, fill, title):
    """A bar and the text of its value, which is drawn above the grid; `end` is the end of the axis."""
    if value is None:
        return "", f'<text class="small" x="{LEFT + 4}" y="{y + BAR - 1.5:.1f}">failed</text>'
    width = x_of(min(value, end)) - LEFT
    box = (f'<rect x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 1.5}" fill="{fill}">'
           f"<title>{escape(title)}: {value:.3f}</title></rect>")
    arrow = " \u25b8" if value > end else ""
    return box, f'<text class="small" x="{LEFT + width + 3:.1f}" y="{y + BAR - 2:.1f}">{value:.2f}{arrow}</text>'


def legend(series):
    out, x = [], LEFT
    for index, name in enumerate(series):
        out.append(f'<rect x="{x}" y="40" width="11" height="11" fill="{colour(name, index)}"/>')
        out.append(f'<text x="{x + 15}" y="50">{escape(name)}</text>')
        x += 15 + 8 * len(name) + 16
    return out


def grid(x_of, end, bottom):
    out, tick = [], 0.0
    while tick <= end + 1e-9:
        x = x_of(tick)
        kind = "one" if abs(tick - 1.0) < 1e-9 else "grid"
        out.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
        label = "1.0 = glibc" if kind == "one" else f"{tick:g}"
        if kind == "one" or tick % 0.5 < 1e-9:
            out.append(f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{TOP - 10}">{label}</text>')
        tick += 0.25
    return out


def bars(title, series, groups):
    """`groups` is [(label, [ratio or None for each series])]; returns the SVG text."""
    group_height = BAR * len(series) + GAP
    bottom = TOP + group_height * len(groups)
    end = axis_end(groups)

    def x_of(ratio):
        return LEFT + (WIDTH - LEFT - RIGHT) * ratio / end

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 16}" width="{WIDTH}" role="img"'
           f' aria-label="{escape(title)}">', f"<style>{STYLE}</style>",
           f'<rect class="back" width="{WIDTH}" height="{bottom + 16}"/>',
           f'<text class="title" x="16" y="24">{escape(title)}</text>']
    out += legend(series)
    values_out = []
    for index, (label, values) in enumerate(groups):
        y = TOP + index * group_height
        if index % 2 == 0:
            out.append(f'<rect class="band" x="0" y="{y}" width="{WIDTH}" height="{group_height}"/>')
        weight = ' class="mean"' if index == 0 else ""
        out.append(f'<text{weight} text-anchor="end" x="{LEFT - 8}" y="{y + group_height / 2 + 4}">{escape(label)}</text>')
        for place, (name, value) in enumerate(zip(series, values)):
            box, text = bar(x_of, y + GAP / 2 + place * BAR, value, end, colour(name, place), f"{label}, {name}")
            out.append(box)
            values_out.append(text)
    return "\n".join(out + grid(x_of, end, bottom) + values_out + ["</svg>\n"])


def groups_of(result, allocators, measure):
    first = [("geo. mean", [result["geomean"][a][measure] for a in allocators])]
    return first + [(row, [cells.get(a, {}).get(measure) for a in allocators]) for row, cells in result["rows"].items()]


def mode_groups(result, mode):
    mean = result["geomean"][mode]
    rows = [(row, [cells.get(mode, {}).get("time"), cells.get(mode, {}).get("rss")])
            for row, cells in result["rows"].items()]
    return [("geo. mean", [mean["time"], mean["rss"]])] + rows


def charts(result, allocators, modes):
    """{file name: SVG text}"""
    others = [a for a in allocators if a != "glibc"]
    date = result["machine"]["date"][:10]
    made = {
        "chart-time.svg": bars(f"Time, relative to glibc (shorter is better), {date}", others,
                               groups_of(result, others, "time")),
        "chart-rss.svg": bars(f"Peak RSS, relative to glibc (shorter is better), {date}", others,
                              groups_of(result, others, "rss")),
    }
    for mode in modes:
        made[f"chart-{mode}.svg"] = bars(f"spanguard mode={mode}, relative to glibc, {date}", ["time", "peak RSS"],
                                         mode_groups(result, mode))
    return made
