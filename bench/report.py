"""From samples to ratios: medians, geometric means, the table, results.json.

A ratio is median over median of glibc in the same set of interleaved runs; the
mean over rows is geometric and takes all rows. An allocator that failed in a row
has no mean at all: it must not look better for what it could not run.
"""
import math
import os
import platform
import re
import statistics
import subprocess
from datetime import datetime, timezone

from rows import REAL

SMALL_KIB = 4096   # below, peak RSS is mostly the C library and the program

# What a mode is held to: (time, RSS, time of any single row).
TARGETS = {
    "plain": (0.72, 1.10, None),
    "hardened": (0.80, 1.15, 1.15),
    "strict": (1.25, 1.40, None),
}

MEASURES = {"time": "time_s", "cpu": "cpu_s", "rss": "rss_kib"}
PACKAGES = ["libjemalloc2", "libmimalloc2.0", "libtcmalloc-minimal4", "libclang-rt-19-dev", "redis-server",
            "python3", "sqlite3", "z3", "ghostscript", "gcc", "clang"]


def geometric_mean(values):
    values = list(values)
    if not values or any(v is None or v <= 0 for v in values):
        return None
    return math.exp(sum(math.log(v) for v in values) / len(values))


def spread(values):
    """Distance of the quartiles over the median; 0 below four samples."""
    if len(values) < 4:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle if middle else 0.0


def row_result(samples, base):
    """One cell: medians, ratios to glibc, spreads and the samples themselves."""
    cell = {}
    for name, key in MEASURES.items():
        values = [getattr(s, key) for s in samples]
        cell[key] = statistics.median(values)
        cell[f"{name}_spread"] = round(spread(values), 4)
        cell[f"{name}_samples"] = [round(v, 4) for v in values]
        reference = statistics.median(getattr(s, key) for s in base) if base else 0
        cell[name] = round(cell[key] / reference, 4) if reference else None
    return cell


def by_run(samples, rows, allocator, key):
    """The geometric mean of each single run index, from the ratios of that index."""
    means = []
    for index in range(min(len(samples[row, "glibc"]) for row in rows)):
        ratios = [getattr(samples[row, allocator][index], key) / getattr(samples[row, "glibc"][index], key)
                  for row in rows]
        means.append(round(geometric_mean(ratios) or 0, 4))
    return means


def results(samples, rows, allocators, failed, machine):
    """`samples` maps (row, allocator) to a list of Sample, one per run."""
    table = {row: {} for row in rows}
    for row in rows:
        for name in allocators:
            if samples.get((row, name)) and (row, name) not in failed:
                table[row][name] = row_result(samples[row, name], samples.get((row, "glibc")))
    means = {}
    for name in allocators:
        cells = [table[row].get(name) for row in rows]
        complete = bool(cells) and all(cells) and all("glibc" in table[row] for row in rows)
        mean = {m: rounded(geometric_mean(c[m] for c in cells)) if complete else None for m in MEASURES}
        big = [row for row in rows if complete and not small(table[row])]
        mean["rss_of_rows_from_4_mib"] = rounded(geometric_mean(table[row][name]["rss"] for row in big))
        mean["worst_time"] = max((c["time"] for c in cells), default=None) if complete else None
        if complete:
            mean["time_by_run"] = by_run(samples, rows, name, "time_s")
        means[name] = mean
    return {"geomean": means, "rows": table, "failed": sorted(" under ".join(f) for f in failed), "machine": machine}


def of_real_programs(result, name, measure):
    """The mean over the rows that are programs of others; None where one is missing."""
    cells = [result["rows"].get(row.name, {}).get(name) for row in REAL]
    return geometric_mean(c[measure] for c in cells) if all(cells) else None


def rounded(value):
    return None if value is None else round(value, 4)


def small(row):
    return "glibc" in row and row["glibc"]["rss_kib"] < SMALL_KIB


def ratio_text(value):
    return "-" if value is None else f"{value:.2f}"


def table_of(result, measure, allocators, unit):
    """One markdown table; glibc's column holds absolute values."""
    others = [a for a in allocators if a != "glibc"]
    lines = [f"| {measure} | glibc {unit} | " + " | ".join(others) + " |", "|---|---:" + "|---:" * len(others) + "|"]
    for row, cells in result["rows"].items():
        label = row + (" *" if measure == "rss" and small(cells) else "")
        base = cells.get("glibc", {}).get(MEASURES[measure])
        absolute = "-" if base is None else f"{base / 1024:.1f}" if measure == "rss" else f"{base:.2f}"
        texts = [ratio_text(cells[a][measure]) if a in cells else "FAILED" for a in others]
        lines.append(f"| {label} | {absolute} | " + " | ".join(texts) + " |")
    means = [ratio_text(result["geomean"][a][measure]) for a in others]
    lines.append("| **geometric mean** | | " + " | ".join(f"**{m}**" for m in means) + " |")
    means = [ratio_text(of_real_programs(result, a, measure)) for a in others]
    lines.append(f"| the {len(REAL)} real programs | | " + " | ".join(means) + " |")
    if measure == "rss":
        means = [ratio_text(result["geomean"][a]["rss_of_rows_from_4_mib"]) for a in others]
        lines.append("| without rows marked * | | " + " | ".join(means) + " |")
    return lines


def verdicts(result):
    """[(text, met)] for every mode that has a target and was measured."""
    found = []
    for mode, (time_limit, rss_limit, row_limit) in TARGETS.items():
        mean = result["geomean"].get(mode)
        if mean is None:
            continue
        limits = [("time", mean["time"], time_limit), ("peak RSS", mean["rss"], rss_limit)]
        if row_limit is not None:
            limits.append(("time of the worst row", mean["worst_time"], row_limit))
        for what, value, limit in limits:
            met = value is not None and value <= limit
            found.append((f"{mode}: {what} {ratio_text(value)}, target <= {limit:.2f}: {'met' if met else 'MISSED'}", met))
    return found


def targets_met(result, modes):
    """All modes that were asked for and have a target were measured and reach it."""
    measured = all(mode in result["geomean"] for mode in modes if mode in TARGETS)
    judged = verdicts(result)
    return bool(judged) and measured and all(met for _, met in judged)


def markdown(result, allocators, notes):
    machine = result["machine"]
    lines = [f"Ratios to glibc, median of {machine['runs']} interleaved runs; below 1.00 is better than glibc.", "",
             f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, Linux {machine['kernel']},"
             f" {machine['libc']}, {machine['date']}, load at start {machine['load_start']}"
             f" and at end {machine['load_end']}.", ""]
    lines += table_of(result, "time", allocators, "s") + [""]
    lines += table_of(result, "rss", allocators, "MiB") + [""]
    lines += ["\\* glibc's peak RSS is under 4 MiB: the ratio says more about fixed cost than about the heap.", ""]
    lines += [f"- {text}" for text, _ in verdicts(result)]
    lines += [f"- {note}" for note in notes]
    lines += [f"- FAILED: {name}" for name in result["failed"]]
    return "\n".join(lines) + "\n"


def cpu_name():
    with open("/proc/cpuinfo") as f:
        text = f.read()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    if match:
        return match.group(1).strip()
    parts = re.findall(r"^CPU (implementer|part)\s*:\s*(\S+)$", text, re.M)
    return platform.machine() + "".join(f" {k} {v}" for k, v in parts[:2])


def read_line(path):
    try:
        with open(path) as f:
            return f.readline().strip()
    except OSError:
        return ""


def package_versions():
    try:
        listed = subprocess.run(["dpkg-query", "-W", *PACKAGES], capture_output=True, text=True, check=False).stdout
    except OSError:
        return {}
    return dict(line.split("\t") for line in listed.splitlines() if "\t" in line)


def machine_facts(command, runs):
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        libc = "unknown libc"
    with open("/proc/meminfo") as f:
        memory_kib = int(re.search(r"MemTotal:\s+(\d+)", f.read()).group(1))
    return {
        "cpu": cpu_name(), "kernel": platform.release(), "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory_kib // 1024, "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "libc": libc, "command": command, "runs": runs, "page_bytes": os.sysconf("SC_PAGESIZE"),
        "transparent_hugepage": read_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_start": round(os.getloadavg()[0], 2), "packages": package_versions(),
    }
